"""The `Range` request header, as the clients of a registry use it (RFC 9110 section 14; PROTOCOL 5.2, 5.4, 8.9).

One single `bytes` range is honoured. Everything else - several ranges, another unit, garbage - is ignored and answered
with the whole blob: podman treats 416 as fatal, so that is left to a start beyond the end alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from proxy.oci.errors import RangeInvalid

_SINGLE: Final = re.compile(r"\Abytes=[ \t]*(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))[ \t]*\Z", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """The value of Content-Range for this part of `size` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The part of `size` bytes to answer with 206, or None for the whole with 200. Raises RangeInvalid for 416."""
    match = _SINGLE.match(header) if header is not None else None
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return ByteRange(max(0, size - int(suffix)), size) if int(suffix) and size else None
    start = int(first)
    if (last and int(last) < start) or size == 0:
        return None
    if start >= size:
        raise RangeInvalid("the range starts beyond the end of the blob", detail={"size": size})
    return ByteRange(start, min(int(last) + 1, size) if last else size)
