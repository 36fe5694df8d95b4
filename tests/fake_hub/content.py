"""The bytes a hub serves: given, generated, or spoilt on purpose."""

import hashlib
import random
from dataclasses import dataclass
from typing import Protocol

BLOCK = 64 * 1024
HASHED_AT_ONCE = 1 << 20


class Content(Protocol):
    """Bytes of a known size that can be read from anywhere."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` up to `stop`."""


class Bytes:
    """Content held in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self, start: int, stop: int) -> bytes:
        return self._data[start:stop]


class Synthetic:
    """Content of any size that is generated while it is read: a block of noise, numbered in its first eight bytes."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._noise = random.Random(seed).randbytes(BLOCK - 8)

    @property
    def size(self) -> int:
        return self._size

    def read(self, start: int, stop: int) -> bytes:
        stop = min(stop, self._size)
        first = start // BLOCK
        blocks = b"".join(number.to_bytes(8, "big") + self._noise for number in range(first, -(-stop // BLOCK)))
        return blocks[start - first * BLOCK : stop - first * BLOCK]


@dataclass(frozen=True, slots=True)
class Flipped:
    """Content with one byte changed."""

    content: Content
    position: int

    @property
    def size(self) -> int:
        return self.content.size

    def read(self, start: int, stop: int) -> bytes:
        data = bytearray(self.content.read(start, stop))
        if start <= self.position < start + len(data):
            data[self.position - start] ^= 0xFF
        return bytes(data)


@dataclass(frozen=True, slots=True)
class Short:
    """Content that lacks its end, and says so nowhere."""

    content: Content
    size: int

    def read(self, start: int, stop: int) -> bytes:
        return self.content.read(start, min(stop, self.size))


def digest_of(content: Content | bytes) -> str:
    """Return the sha256 digest of the content."""
    if isinstance(content, bytes):
        content = Bytes(content)
    sha256 = hashlib.sha256()
    for start in range(0, content.size, HASHED_AT_ONCE):
        sha256.update(content.read(start, min(start + HASHED_AT_ONCE, content.size)))
    return f"sha256:{sha256.hexdigest()}"
