"""Fills: one fetch of a blob into the store, followed by any number of readers.

The rules of this room:
- One fill a digest, whoever asks (`Fills.start` is synchronous: no `await` between looking and joining).
- Bytes go to the file first and to readers from there, so a slow reader slows nobody and one that leaves changes
  nothing; a fill goes on to its end when all have left.
- The last bytes become visible only when the digest was verified: a wrong blob can never arrive complete. Then the
  file is flushed to disk and gets its name; who comes meanwhile still reads from the fill.
- A transfer that breaks is resumed where it stopped, by asking upstream anew. Attempts that bring next to nothing are
  bounded.
- What is left on disk: after success the blob; after wrong bytes nothing; after any other failure the partial, from
  which the next fill goes on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Final, Protocol

from proxy.oci.errors import RegistryError, Unavailable
from proxy.oci.names import Digest, Repository
from proxy.store.partial import Partial
from proxy.store.progress import Progress
from proxy.store.threads import in_thread
from proxy.store.transfer import RawBody, Transfers
from proxy.store.write_behind import WriteBehind

log = logging.getLogger(__name__)

MAX_IDLE_ATTEMPTS: Final = 5
"""Attempts in a row that bring next to nothing, after which a fill fails: about 6 s of pauses if they fail at once."""
WORTHWHILE_BYTES: Final = 64 * 1024
"""An attempt that brought this much was a good one."""
FIRST_PAUSE_SECONDS: Final = 0.2
LARGE_BYTES: Final = 1024 * 1024
"""What is at least so large is received in a thread of its own."""

_MAX_PAUSE_SECONDS: Final = 5.0


class Body(Protocol):
    """Upstream's answer for a blob, from byte `start` on; `size` is the whole blob's, in bytes, if upstream says it."""

    @property
    def size(self) -> int | None: ...

    @property
    def start(self) -> int: ...

    async def read(self) -> bytes:
        """What has arrived; empty at the end. Raises RegistryError when the transfer breaks."""

    def detach(self) -> RawBody | None:
        """The rest of the body for a thread to receive, if that can be; then `read` is not called any more."""


Source = Callable[[int], AbstractAsyncContextManager[Body]]
"""Opens a blob upstream from an offset on. Entering it raises RegistryError."""


class WrongContent(Unavailable):
    """What upstream sent does not have the digest that was asked for."""


class DiskFailed(Unavailable):
    """Our own disk did not take the bytes."""


class Fill:
    """One running fetch of one blob. Made and run by `Fills`."""

    def __init__(
        self,
        digest: Digest,
        repository: Repository,
        expected_size: int | None,
        source: Source,
        partial: Partial,
        executor: Executor,
        transfers: Transfers,
    ) -> None:
        self.digest = digest
        self.repository = repository
        self._expected_size = expected_size
        self.progress = Progress()
        self.readers = 0
        self.answered = False
        """Whether upstream has answered with this blob: proof that `repository` holds it."""
        self.stored = False
        """Whether the blob has its name."""
        self._started_at = time.monotonic()
        self._source = source
        self._partial = partial
        self._executor = executor
        self._transfers = transfers
        self._users = 1  # The fill itself, then each reader: the last to leave closes the file.

    def __repr__(self) -> str:
        progress = self.progress
        return f"<Fill {self.digest} {progress.received}/{progress.size} readers={self.readers}>"

    @property
    def fd(self) -> int:
        """The open file; readers read from it at offsets of their own."""
        return self._partial.fd

    @property
    def seconds(self) -> float:
        """How long the fill has been running."""
        return time.monotonic() - self._started_at

    @contextmanager
    def reader(self) -> Iterator[Fill]:
        """A place among the readers, which keeps the file open."""
        self._users += 1
        self.readers += 1
        try:
            yield self
        finally:
            self.readers -= 1
            self._release()

    async def size(self) -> int:
        """Bytes of the whole blob, as soon as that is known. Raises the fill's RegistryError."""
        while True:
            if self.progress.error is not None:
                raise self.progress.error
            if self.progress.size is not None:
                return self.progress.size
            await self.progress.changed()

    async def visible(self, offset: int) -> int:
        """Where the bytes that can be sent now end, once that is beyond `offset`. Raises the fill's RegistryError."""
        while self.progress.visible <= offset:
            if self.progress.error is not None:
                raise self.progress.error
            await self.progress.changed()
        return self.progress.visible

    async def run(self) -> None:
        """Fetch, verify, commit; the outcome is told to the readers. Raises CancelledError only."""
        try:
            await in_thread(self._executor, self._partial.open)
            self.progress.received = self._partial.length
            if not await in_thread(self._executor, self._partial.is_whole):
                await self._fetch()
                await self._verify()
            self.progress.succeed()  # Nobody who waits for the last bytes has to wait for the disk too.
            await in_thread(self._executor, self._partial.commit)
            self.stored = True
        except RegistryError as error:
            self.progress.fail(error)
        except OSError as error:
            log.error("cannot store %s: %s", self.digest, error)
            self.progress.fail(DiskFailed("the cache cannot write to its disk"))
        except asyncio.CancelledError:
            self.progress.fail(Unavailable("the cache is shutting down", retry_after=1))
            raise
        except BaseException:
            self.progress.fail(Unavailable("the cache failed while storing this blob"))
            raise
        finally:
            self._partial.drop_if_empty()
            self._release()

    async def _fetch(self) -> None:
        attempts = 0
        while True:
            before = self.progress.received
            try:
                return await self._transfer()
            except Unavailable as error:
                attempts = 1 if self.progress.received - before >= WORTHWHILE_BYTES else attempts + 1
                if attempts > MAX_IDLE_ATTEMPTS:
                    raise
                pause = min(_MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempts - 1)) * random.uniform(0.7, 1.0)
                log.info("%s broke at byte %d (%s): again in %.1f s", self, self.progress.received, error, pause)
            await asyncio.sleep(pause)

    async def _transfer(self) -> None:
        """One answer of upstream, from where we are to its end. Raises RegistryError."""
        async with self._source(self.progress.received) as body, self._written_behind() as writing:
            await self._agree(body)
            end = self.progress.received
            again = end - body.start  # What upstream sends once more, because it ignored the range.
            raw = body.detach() if again == 0 and self._is_large(end) and self._transfers.available else None
            if raw is not None:
                await self._transfers.receive(raw, self._partial, self.progress.advanced)
                return
            while end != self.progress.size and (content := await body.read()):
                fresh = content[again:]
                again = max(0, again - len(content))
                if self.progress.size is not None:
                    fresh = fresh[: self.progress.size - end]  # More than that would not be of this blob.
                end += len(fresh)
                if fresh:
                    await writing.feed(fresh)
        if self.progress.size is not None and self.progress.received != self.progress.size:
            raise Unavailable(f"upstream sent {self.progress.received} of {self.progress.size} bytes")

    def _is_large(self, received: int) -> bool:
        """Whether what is still to come is worth a thread."""
        return self.progress.size is not None and self.progress.size - received >= LARGE_BYTES

    async def _agree(self, body: Body) -> None:
        """Take over upstream's word on the size; a later answer must not contradict it. Raises Unavailable."""
        known = self.progress.size
        if body.size is not None and known is not None and body.size != known:
            raise Unavailable(f"upstream says {body.size} bytes now and said {known} before")
        size = self._expected_size if body.size is None else body.size
        if known is None and size is not None and size <= self.progress.received:
            # What an earlier run left has this blob's size, but not its digest, or cannot be of this blob at all.
            await in_thread(self._executor, self._partial.restart)
            self.progress.received = 0
        if body.start not in (0, self.progress.received):
            raise Unavailable("upstream answered another range than was asked for")
        self.answered = True
        if known is None and size is not None:
            self.progress.sized(size)

    @asynccontextmanager
    async def _written_behind(self) -> AsyncIterator[WriteBehind]:
        writing = WriteBehind(self._partial, self._executor, self.progress.advanced)
        try:
            yield writing
        finally:
            await writing.drain()

    async def _verify(self) -> None:
        if not await in_thread(self._executor, self._partial.is_whole):
            await in_thread(self._executor, self._partial.discard)
            raise WrongContent(f"upstream sent other content than {self.digest}")

    def _release(self) -> None:
        self._users -= 1
        if self._users == 0:
            self._partial.close()
