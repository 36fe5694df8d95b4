"""Fills: one fetch of a blob into the store, followed by any number of readers.

The rules of this room:
- One fill a digest, whoever asks (`Fills.start` is synchronous: no `await` between looking and joining).
- Bytes go to the file first and to readers from there, so a slow reader slows nobody and one that leaves changes
  nothing; a fill goes on to its end when all have left.
- The last bytes become visible only when the digest was verified: a wrong blob can never arrive complete. Then the
  file is flushed to disk and gets its name; who comes meanwhile still reads from the fill.
- A transfer that breaks is resumed where it stopped, by asking upstream anew. Attempts that bring next to nothing are
  bounded.
- A fill writes nothing that it has no room for. If it gets none it ends, and each of its readers goes on past the disk
  (`store.fills.passthrough`) from where the file ends.
- What is left on disk: after success the blob; after wrong bytes nothing; after any other failure the partial, from
  which the next fill goes on, unless that was for want of room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from proxy.oci.errors import RegistryError, Unavailable
from proxy.oci.names import Digest, Repository
from proxy.store.fills.partial import InUse, Partial
from proxy.store.fills.passthrough import PassThrough, Prefix
from proxy.store.fills.progress import Progress
from proxy.store.fills.receiving import Receiving
from proxy.store.fills.several import SeveralConnections
from proxy.store.fills.source import Attempts, Body, Source, WrongContent
from proxy.store.fills.transfer import Transfers
from proxy.store.room import Claim, NotStored, Reason
from proxy.store.threads import in_thread

log = logging.getLogger(__name__)


class DiskFailed(Unavailable):
    """Our own disk did not take the bytes."""


PassingOn = Callable[[Digest, Source, Reason, int | None, Prefix | None], PassThrough]
"""Makes a way past the disk: see `Fills.pass_through`."""


class Fill:
    """One running fetch of one blob. Made and run by `Fills`."""

    def __init__(
        self,
        digest: Digest,
        repository: Repository,
        expected_size: int | None,
        source: Source,
        partial: Partial,
        claim: Claim,
        executor: Executor,
        transfers: Transfers,
        several: SeveralConnections,
        pass_through: PassingOn,
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
        self.on_deserted: Callable[[], None] | None = None
        """Called when the last reader leaves."""
        self._started_at = time.monotonic()
        self._source = source
        self._partial = partial
        self._claim = claim
        self._discarded = False
        self._executor = executor
        self._receiving = Receiving(partial, self.progress, claim, executor, transfers, several)
        self._pass_through = pass_through
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
            if not self.readers and self.on_deserted is not None:
                self.on_deserted()

    async def size(self) -> int:
        """Bytes of the whole blob, as soon as that is known. Raises the fill's RegistryError."""
        while True:
            if self.progress.error is not None:
                raise self.progress.error
            if self.progress.size is not None:
                return self.progress.size
            await self.progress.changed()

    async def visible(self, offset: int) -> int:
        """Where the bytes that can be sent now end, once that is beyond `offset`. Raises the fill's RegistryError.

        Not beyond it if no more will come by the file: then there is `rest`.
        """
        while self.progress.visible <= offset:
            if isinstance(self.progress.error, NotStored):
                return offset
            if self.progress.error is not None:
                raise self.progress.error
            await self.progress.changed()
        return self.progress.visible

    async def rest(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """What does not come by the file any more, for one reader. Raises RegistryError."""
        assert isinstance(self.progress.error, NotStored)
        prefix = Prefix(self.fd, self._partial.length, self._partial.hash_so_far())
        passing = self._pass_through(self.digest, self._source, self.progress.error.reason, self.progress.size, prefix)
        async with contextlib.aclosing(passing):
            async for piece in passing.rest(start, stop):
                yield piece

    async def verified(self) -> None:
        """Wait until all of it is here and is what it should be. Raises the fill's RegistryError."""
        while not self.progress.verified:
            if self.progress.error is not None:
                raise self.progress.error
            await self.progress.changed()

    async def run(self) -> None:
        """Fetch, verify, commit; the outcome is told to the readers. Raises CancelledError only."""
        try:
            await self._open()
            if not await in_thread(self._executor, self._partial.is_whole):
                await self._fetch()
                await self._verify()
            self.progress.succeed()  # Nobody who waits for the last bytes has to wait for the disk too.
            await in_thread(self._executor, self._partial.commit)
            self.stored = True
        except NotStored as error:
            if self.progress.size is not None:  # Its readers go on past the disk; the room is wanted back.
                await self._discard()
            self.progress.fail(error)
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

    def end(self) -> int:
        """After `run`, and after the index knows: give back the room. Returns how many bytes a partial file keeps."""
        self._partial.drop_if_empty()
        self._partial.unlock()
        if self._discarded:  # Then the room is taken until the last reader closes the file.
            self._release()
            return 0
        self._claim.release()
        self._release()
        return 0 if self._partial.committed else self._partial.length

    async def _open(self) -> None:
        try:
            await in_thread(self._executor, self._partial.open)
        except InUse:
            raise NotStored("locked", "another process is storing this blob") from None
        except OSError as error:
            log.error("cannot begin to store %s: %s", self.digest, error)
            raise NotStored("disk", f"the disk of the cache does not take it: {error.strerror}") from error
        self.progress.received = self._partial.length

    async def _fetch(self) -> None:
        attempts = Attempts()
        while True:
            before = self.progress.received
            try:
                return await self._transfer(attempts)
            except NotStored:
                raise
            except Unavailable as error:
                pause = attempts.failed(self, error, self.progress.received - before)
            except OSError as error:
                log.warning("%s: writing failed at byte %d: %s", self, self._partial.length, error)
                self.progress.received = self._partial.length  # What was written before is right.
                await self._claim.renew(error)
                pause = 0.0
            await asyncio.sleep(pause)

    async def _transfer(self, attempts: Attempts) -> None:
        """One answer of upstream, from where we are to its end. Raises RegistryError and OSError."""
        async with self._source(self.progress.received) as body:
            await self._agree(body, trusting=attempts.is_last)
            await self._receiving.receive(body)

    async def _agree(self, body: Body, *, trusting: bool) -> None:
        """Take over upstream's word on the size; a later answer must not contradict it. Raises Unavailable.

        Where a manifest has told another size, the answer is probably none: the page of a login, say, which nobody is
        to get a range of. Only when upstream insists, `trusting`, the digest decides who is wrong.
        """
        known = self.progress.size
        if not trusting and None not in (body.size, self._expected_size) and body.size != self._expected_size:
            raise Unavailable(f"upstream says {body.size} bytes where {self._expected_size} were expected")
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
            await self._claim.grow(size)
            self.progress.sized(size)

    async def _verify(self) -> None:
        if not await in_thread(self._executor, self._partial.is_whole):
            await self._discard()
            raise WrongContent(f"upstream sent other content than {self.digest}")

    async def _discard(self) -> None:
        """Remove the file; its room is free when the last reader closes it."""
        self._discarded = True
        with contextlib.suppress(OSError):
            await in_thread(self._executor, self._partial.discard)

    def _release(self) -> None:
        self._users -= 1
        if self._users:
            return
        if not self._discarded:
            self._partial.close()
            return
        closing = asyncio.get_running_loop().run_in_executor(self._executor, self._partial.close)  # It may be large.
        closing.add_done_callback(lambda _: self._claim.release())
