"""The body of a blob as it arrives, and the headers that say which part of the blob it is (RFC 9110 section 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from proxy.metrics import Metrics
from proxy.oci.errors import Unavailable
from proxy.upstream.failures import border
from proxy.upstream.transport import Answer, content_length

_PART: Final = re.compile(r"\Abytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z", re.ASCII | re.IGNORECASE)
_UNSATISFIED: Final = re.compile(r"\Abytes \*/(\d{1,19})\Z", re.ASCII | re.IGNORECASE)


class BlobBody:
    """The bytes of a blob from `start` on. `size` is of the whole blob, None where upstream does not say."""

    __slots__ = ("_answer", "_left", "_metrics", "_upstream", "size", "start")

    def __init__(self, upstream: str, answer: Answer, offset: int, metrics: Metrics) -> None:
        """Raises Unavailable for an answer to `Range: bytes=<offset>-` that cannot be what was asked for."""
        self._upstream = upstream
        self._answer = answer
        self._metrics = metrics
        if answer.status == 206:
            part = _PART.match(answer.headers.get("Content-Range", ""))
            if part is None or int(part[1]) != offset:
                raise Unavailable(f"{upstream}: another part of the blob than was asked for")
            self.start = offset
            self.size = None if part[3] == "*" else int(part[3])
            self._left = (int(part[2]) + 1 if self.size is None else self.size) - offset
        else:
            self.start = 0
            self.size = content_length(answer.headers)
            self._left = self.size

    _left: int | None
    size: int | None
    start: int

    def __repr__(self) -> str:
        return f"<BlobBody of {self._upstream} from {self.start}, size {self.size}>"

    async def read(self) -> bytes:
        """What has arrived since; b"" at the end, if that is where the end should be. Raises Unavailable."""
        with border(self._upstream):
            data = await self._answer.response.content.readany()
        if self._left is not None:
            self._left -= len(data)
        if (self._left or 0) < 0 or (not data and self._left):
            raise Unavailable(f"{self._upstream}: the blob ended at another place than was announced")
        self._metrics.fetched(self._upstream, "blob", len(data))
        return data

    def close(self) -> None:
        """Stop here."""
        self._answer.close()


def total_size(headers: Mapping[str, str]) -> int | None:
    """The size of the whole that a Content-Range tells of, in bytes."""
    value = headers.get("Content-Range", "")
    found = _PART.match(value) or _UNSATISFIED.match(value)
    total = found[found.re.groups] if found else "*"
    return None if total == "*" else int(total)
