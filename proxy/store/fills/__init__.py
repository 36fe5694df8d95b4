"""The running fills of one store, of which there is never more than one a digest, and not more than `most` in all.

One more has to wait for its turn, but not for long: then its readers get 503 and are asked to come again. One that
waits while nobody reads is given up, so that nothing grows behind clients that ask and leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from typing import Final

from proxy.metrics import Metrics
from proxy.oci.errors import RegistryError, TooManyRequests, Unavailable
from proxy.oci.names import Digest, Repository
from proxy.store.blobs import Blobs
from proxy.store.fills.fill import DiskFailed, Fill
from proxy.store.fills.partial import Partial
from proxy.store.fills.passthrough import PassThrough, Prefix
from proxy.store.fills.several import SeveralConnections
from proxy.store.fills.source import Source, WrongContent
from proxy.store.fills.transfer import Transfers
from proxy.store.room import Claims, NotStored, Reason
from proxy.store.room.leftovers import Leftovers
from proxy.store.room.removal import Removal

log = logging.getLogger(__name__)

TURN_SECONDS: Final = 15.0
"""How long a fill waits for its turn; clients wait 30 s for headers (PROTOCOL 8.10)."""


class TooManyFills(Unavailable):
    """As many blobs as may be are being fetched."""


class Fills:
    """The running fills of one store; each is a task owned here and awaited by `aclose`."""

    def __init__(
        self,
        blobs: Blobs,
        removal: Removal,
        claims: Claims,
        leftovers: Leftovers,
        metrics: Metrics,
        executor: Executor,
        transfers: Transfers,
        several: SeveralConnections,
        most: int,
    ) -> None:
        """`most` at a time; 0 is no limit."""
        self._blobs = blobs
        self._removal = removal
        self._claims = claims
        self._leftovers = leftovers
        self._metrics = metrics
        self._executor = executor
        self._transfers = transfers
        self._several = several
        self._turns = asyncio.Semaphore(most) if most else None
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
        """Begin to fetch a blob that no fill runs for; `expected_size` is what a manifest says."""
        partial = Partial(self._blobs, digest)
        claim = self._claims.open(self._leftovers.take(digest), lambda: 0 if partial.found else partial.length)
        fill = Fill(
            digest,
            repository,
            expected_size,
            source,
            partial,
            claim,
            self._executor,
            self._transfers,
            self._several,
            self.pass_through,
        )
        task = asyncio.get_running_loop().create_task(self._run(fill), name=f"fill {digest}")
        self._running[digest] = fill, task
        return fill

    def may_store(self, size: int) -> bool:
        """Whether a blob of this size would ever get room."""
        return self._claims.room.could_ever_hold(size)

    def pass_through(
        self, digest: Digest, source: Source, reason: Reason, size: int | None = None, prefix: Prefix | None = None
    ) -> PassThrough:
        """A way past the disk, for one reader of a blob that is not stored; see `PassThrough`."""
        self._metrics.not_stored(reason)
        return PassThrough(digest, source, self._executor, size, prefix)

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
            async with self._turn(fill):
                await fill.run()
        except TooManyFills as error:
            fill.progress.fail(error)
        except Exception:
            log.exception("%s failed in a way that should not happen", fill)
        finally:
            if not fill.progress.ended:
                fill.progress.fail(Unavailable("the cache is shutting down", retry_after=1))
            del self._running[fill.digest]
            if fill.stored:
                self._removal.stored(fill.digest, fill.progress.received)
            self._leftovers.put(fill.digest, fill.end())
        if fill.progress.error is not None:
            self._account(fill, fill.progress.error)

    @contextlib.asynccontextmanager
    async def _turn(self, fill: Fill) -> AsyncIterator[None]:
        """Raises TooManyFills."""
        if self._turns is None:
            yield
            return
        try:
            async with asyncio.timeout(TURN_SECONDS) as patience:
                now = asyncio.get_running_loop().time
                fill.on_deserted = lambda: patience.reschedule(now())
                await self._turns.acquire()
        except TimeoutError:
            raise TooManyFills("the cache is fetching as many blobs as it may at a time", retry_after=5) from None
        finally:
            fill.on_deserted = None
        try:
            yield
        finally:
            self._turns.release()

    def _account(self, fill: Fill, error: RegistryError) -> None:
        if isinstance(error, NotStored):  # Its readers go on past the disk, and that is what is counted.
            log.info("%s is not stored: %s", fill, error.message)
            return
        reason = _reason(error)
        self._metrics.fill_failed(reason)
        log.log(logging.INFO if reason == "refused" else logging.WARNING, "%s failed: %s", fill, error.message)


def _reason(error: RegistryError) -> str:
    """Why a fill was given up, for the metrics."""
    if isinstance(error, WrongContent):
        return "wrong_content"
    if isinstance(error, DiskFailed):
        return "disk"
    if isinstance(error, TooManyFills):
        return "busy"
    return "upstream" if isinstance(error, Unavailable | TooManyRequests) else "refused"
