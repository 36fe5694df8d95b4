"""The running fills of one store, of which there is never more than one a digest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import Executor

from proxy.metrics import Metrics
from proxy.oci.errors import RegistryError, TooManyRequests, Unavailable
from proxy.oci.names import Digest, Repository
from proxy.store.blobs import Blobs
from proxy.store.fill import DiskFailed, Fill, Source, WrongContent
from proxy.store.index import Index
from proxy.store.partial import Partial
from proxy.store.transfer import Transfers

log = logging.getLogger(__name__)


class Fills:
    """The running fills of one store; each is a task owned here and awaited by `aclose`."""

    def __init__(self, blobs: Blobs, index: Index, metrics: Metrics, executor: Executor, transfers: Transfers) -> None:
        self._blobs = blobs
        self._index = index
        self._metrics = metrics
        self._executor = executor
        self._transfers = transfers
        self._running: dict[Digest, tuple[Fill, asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Fill]:
        return iter([fill for fill, _ in self._running.values()])

    def running(self, digest: Digest) -> Fill | None:
        """The fill of this digest, if one runs."""
        entry = self._running.get(digest)
        return entry[0] if entry else None

    def start(self, digest: Digest, repository: Repository, expected_size: int | None, source: Source) -> Fill:
        """Begin to fetch a blob that no fill runs for; `expected_size` is used where upstream tells no size."""
        partial = Partial(self._blobs, digest)
        fill = Fill(digest, repository, expected_size, source, partial, self._executor, self._transfers)
        task = asyncio.get_running_loop().create_task(self._run(fill), name=f"fill {digest}")
        self._running[digest] = fill, task
        return fill

    async def settled(self) -> None:
        """Wait for the fills that run now."""
        if self._running:
            await asyncio.wait([task for _, task in self._running.values()])

    async def aclose(self) -> None:
        """Stop all fills; their partials stay for the next run of the program."""
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, fill: Fill) -> None:
        try:
            await fill.run()
        except Exception:
            log.exception("%s failed in a way that should not happen", fill)
        finally:
            del self._running[fill.digest]
        if fill.stored:
            self._index.put_blob(fill.digest, fill.progress.received)
        if fill.progress.error is not None:
            reason = _reason(fill.progress.error)
            self._metrics.fill_failed(reason)
            level = logging.INFO if reason == "refused" else logging.WARNING
            log.log(level, "%s failed: %s", fill, fill.progress.error.message)


def _reason(error: RegistryError) -> str:
    """Why a fill was given up, for the metrics."""
    if isinstance(error, WrongContent):
        return "wrong_content"
    if isinstance(error, DiskFailed):
        return "disk"
    return "upstream" if isinstance(error, Unavailable | TooManyRequests) else "refused"
