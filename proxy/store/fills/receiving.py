"""How the body of an answer comes into a partial file: in a thread where it is large, else on the event loop.

Either way it is written and hashed in order, and readers learn of it as it comes.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Executor
from contextlib import aclosing, contextmanager
from typing import Final, Protocol

from proxy.oci.errors import Unavailable
from proxy.policy.segments import Speed
from proxy.store.fills.partial import Partial
from proxy.store.fills.progress import Progress
from proxy.store.fills.several import WORTHWHILE_BYTES, SeveralConnections
from proxy.store.fills.source import Body
from proxy.store.fills.transfer import RawBody, Transfers
from proxy.store.fills.write_behind import WriteBehind
from proxy.store.room import Claim

LARGE_BYTES: Final = 1024 * 1024
"""What is at least so large is received in a thread of its own."""


FULL_BYTES: Final = 256 * 1024
"""So much at once has not been waited for."""


class Way(Protocol):
    """One way of an answer into the partial file."""

    async def bring(self, stop: int | None, speed: Speed | None = None) -> None:
        """Append up to this offset of the blob, or all there is; with `speed`, only until that is slow.

        Raises RegistryError and OSError.
        """


class Receiving:
    """Brings answers into the partial file of one fill."""

    def __init__(
        self,
        partial: Partial,
        progress: Progress,
        claim: Claim,
        executor: Executor,
        transfers: Transfers,
        several: SeveralConnections,
    ) -> None:
        self._partial = partial
        self._progress = progress
        self._claim = claim
        self._executor = executor
        self._transfers = transfers
        self._several = several

    async def receive(self, body: Body) -> None:
        """All of the rest of the blob. Raises NotStored, Unavailable when that is not all, and OSError."""
        with self._way(body) as way:
            await self._bring(way, body)
        size, received = self._progress.size, self._progress.received
        if size is not None and received != size:
            raise Unavailable(f"upstream sent {received} of {size} bytes")

    async def _bring(self, way: Way, body: Body) -> None:
        size = self._progress.size
        parts = body.parts() if size is not None and self._left > WORTHWHILE_BYTES else None
        if size is None or parts is None:
            return await way.bring(size)
        speed = Speed()
        await way.bring(size, speed)
        if speed.is_slow and self._left > WORTHWHILE_BYTES:
            async with self._several.of(parts, self._partial, size, speed.rate) as segments:
                if segments is not None:
                    await way.bring(segments.start)
                    if await segments.prove():
                        body.close()
                        segments.connect(further=False)
                        return await segments.append(self._progress.advanced)
        await way.bring(size)

    @contextmanager
    def _way(self, body: Body) -> Iterator[Way]:
        again = self._progress.received - body.start  # What upstream sends once more, because it ignored the range.
        if again == 0 and self._left >= LARGE_BYTES and self._transfers.available:
            raw = body.detach()
            if raw is not None:
                with self._transfers.place():
                    yield _InThread(raw, self._partial, self._progress, self._transfers)
                return
        yield _OnLoop(body, again, self._partial, self._progress, self._claim, self._executor)

    @property
    def _left(self) -> int:
        """Bytes that are still to come, as far as that is known."""
        return 0 if self._progress.size is None else self._progress.size - self._progress.received


class _InThread:
    def __init__(self, raw: RawBody, partial: Partial, progress: Progress, transfers: Transfers) -> None:
        self._raw = raw
        self._partial = partial
        self._progress = progress
        self._transfers = transfers

    async def bring(self, stop: int | None, speed: Speed | None = None) -> None:
        assert stop is not None
        await self._transfers.receive(self._raw, self._partial, self._progress.advanced, stop, speed)


class _OnLoop:
    def __init__(
        self, body: Body, again: int, partial: Partial, progress: Progress, claim: Claim, executor: Executor
    ) -> None:
        self._body = body
        self._again = again
        self._partial = partial
        self._progress = progress
        self._claim = claim
        self._executor = executor
        self._kept = b""
        """What came from beyond the last stop."""

    async def bring(self, stop: int | None, speed: Speed | None = None) -> None:
        end = self._progress.received
        writing = WriteBehind(self._partial, self._executor, self._progress.advanced)
        try:
            async with aclosing(self._pieces(speed)) as pieces:
                while end != stop and (content := await anext(pieces, b"")):
                    if stop is not None:
                        content, self._kept = content[: stop - end], content[stop - end :]
                    end += len(content)
                    if self._progress.size is None:
                        await self._claim.cover(end)
                    await writing.feed(content)
        finally:
            await writing.drain()

    async def _pieces(self, speed: Speed | None) -> AsyncGenerator[bytes, None]:
        if self._kept:
            kept, self._kept = self._kept, b""
            yield kept
        while speed is None or not speed.is_slow:
            started = time.monotonic()
            content = await self._body.read()
            if not content:
                return
            if speed is not None:
                speed.note(time.monotonic() - started, len(content), full=len(content) >= FULL_BYTES)
            fresh = content[self._again :]
            self._again = max(0, self._again - len(content))
            if fresh:
                yield fresh
