"""A blob that is not stored: on its way from upstream to one reader, past the disk.

So a pull succeeds where there is no room (`store.room`). The rules are those of fills: every byte is hashed, the last
ones are held back until the digest was verified, a transfer that breaks is resumed where it stopped. The price is a
transfer from upstream for each reader, from the first byte on unless a fill has brought the beginning, even if the
reader wants only a part. Blobs are not counted against a pull quota. A reader holds a few hundred KiB of memory: what
it does not take is not asked for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.oci.errors import Unavailable
from proxy.oci.names import Digest
from proxy.store.fills.progress import HELD_BACK_BYTES
from proxy.store.fills.source import Attempts, Source, WrongContent
from proxy.store.threads import in_thread

if TYPE_CHECKING:
    from hashlib import _Hash

_PIECE_BYTES: Final = 256 * 1024
_LARGE_PIECE_BYTES: Final = 16 * 1024
"""What is at least so large is hashed in a thread."""


class Prefix(NamedTuple):
    """The beginning of a blob, in an open file that nobody writes to any more; the hash is of exactly that."""

    fd: int
    length: int
    hash: _Hash


class PassThrough:
    """One transfer. `await open()`, then `rest` once, then `await aclose()`.

    `size` of the whole blob, in bytes, is known once it is open, if upstream tells it; otherwise it is to be set.
    """

    fd: Final = -1

    def __init__(
        self, digest: Digest, source: Source, executor: Executor, size: int | None = None, prefix: Prefix | None = None
    ) -> None:
        self.digest = digest
        self.size = size
        self._source = source
        self._executor = executor
        self._prefix = prefix
        self._position = prefix.length if prefix else 0
        self._hash = prefix.hash if prefix else digest.hasher()
        self._arriving = self._arrive(self._position)

    def __repr__(self) -> str:
        return f"<PassThrough {self.digest} {self._position}/{self.size}>"

    async def open(self) -> None:
        """Returns once upstream has answered. Raises RegistryError."""
        await anext(self._arriving, None)

    async def aclose(self) -> None:
        """End the transfer."""
        await self._arriving.aclose()

    async def visible(self, offset: int) -> int:
        """None of it comes by a file."""
        return offset

    async def rest(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` to `stop`. Raises RegistryError; then not all have been given."""
        assert self.size is not None
        window = _Window(start, stop, self.size)
        async for offset, content in self._beginning(start):
            if part := window.take(offset, content):
                yield part
        async for content in self._arriving:
            offset, self._position = self._position, self._position + len(content)
            await self._add(content)
            if part := window.take(offset, content):
                yield part
            if window.is_served(self._position):
                return
        if self._hash.hexdigest() != self.digest.hex:
            raise WrongContent(f"upstream sent other content than {self.digest}")
        if window.held:
            yield bytes(window.held)

    async def whole(self) -> bytes:
        """All of a small blob, verified. Raises RegistryError."""
        assert self.size is not None
        return b"".join([part async for part in self.rest(0, self.size)])

    async def _beginning(self, start: int) -> AsyncIterator[tuple[int, bytes]]:
        """What a fill had brought of it, from `start` on."""
        if self._prefix is None:
            return
        fd, length, _ = self._prefix
        while start < length:
            wanted = min(_PIECE_BYTES, length - start)
            content = await in_thread(self._executor, partial(os.pread, fd, wanted, start))
            if not content:
                raise Unavailable("the cache cannot read what it has of this blob")
            yield start, content
            start += len(content)

    async def _add(self, content: bytes) -> None:
        if len(content) < _LARGE_PIECE_BYTES:
            self._hash.update(content)
        else:
            await in_thread(self._executor, lambda: self._hash.update(content))

    async def _arrive(self, position: int) -> AsyncGenerator[bytes, None]:
        """Upstream's bytes from a position on; an empty piece whenever it has answered. Raises RegistryError."""
        attempts = Attempts()
        while self.size is None or position < self.size:
            before = position
            try:
                async with self._source(position) as body:
                    again = self._agree(position, body.start, body.size)
                    yield b""
                    while position != self.size and (content := await body.read()):
                        fresh = content[again:]
                        again = max(0, again - len(content))
                        fresh = fresh if self.size is None else fresh[: self.size - position]
                        position += len(fresh)
                        yield fresh
                if self.size is None or position != self.size:
                    raise Unavailable(f"upstream sent {position} of {self.size} bytes")
                return
            except Unavailable as error:
                pause = attempts.failed(self, error, position - before)
            await asyncio.sleep(pause)

    def _agree(self, position: int, start: int, size: int | None) -> int:
        """How many bytes upstream sends once more, because it ignored the range. Raises Unavailable."""
        if self.size is not None and size is not None and size != self.size:
            raise Unavailable(f"upstream says {size} bytes now and said {self.size} before")
        if start not in (0, position):
            raise Unavailable("upstream answered another range than was asked for")
        if self.size is None:
            self.size = size
        return position - start


class _Window:
    """What the reader wants of a blob; its last bytes are held back."""

    def __init__(self, start: int, stop: int, size: int) -> None:
        self._start = start
        self._stop = stop
        self._held_from = max(0, size - HELD_BACK_BYTES)
        self.held = bytearray()

    def take(self, offset: int, content: bytes) -> bytes:
        """What of this may go to the reader now; what may go later is kept in `held`."""
        first, last = max(self._start, offset), min(self._stop, offset + len(content))
        if first >= last:
            return b""
        middle = min(max(first, self._held_from), last)
        self.held += content[middle - offset : last - offset]
        return content[first - offset : middle - offset]

    def is_served(self, position: int) -> bool:
        """Whether nothing from there on is wanted, nor anything held back."""
        return position >= self._stop and self._stop <= self._held_from
