"""An answer before it is sent: honest as made here, and then whatever the faults make of it."""

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import Any

from multidict import CIMultiDict

from .content import Bytes, Content

BEFORE_HEADERS = -1


class CutOff(Exception):
    """The connection is to be broken here."""


class Gate:
    """Where answers wait until a test lets them go on, or breaks their connections."""

    def __init__(self) -> None:
        self.waiting = 0
        self._done = asyncio.Event()
        self._cut = False

    def release(self) -> None:
        """Let every answer go on, now and later."""
        self._done.set()

    def cut(self) -> None:
        """Break the connections of the answers waiting here; later ones pass."""
        self._cut = True
        self._done.set()

    async def passed(self) -> None:
        """Wait to be let through; raise CutOff if the connection is to be broken instead."""
        if self._done.is_set():
            return
        self.waiting += 1
        try:
            await self._done.wait()
        finally:
            self.waiting -= 1
        if self._cut:
            raise CutOff


@dataclass(slots=True, eq=False)
class Answer:
    """Status, headers and content; positions below count the bytes of this answer's body."""

    status: int = 200
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    content: Content = field(default_factory=lambda: Bytes(b""))
    window: tuple[int, int] | None = None  # the part of the content a 206 sends
    chunked: bool = False  # no Content-Length
    holds: list[tuple[int, Gate]] = field(default_factory=list)
    cut_after: int | None = None  # then the connection is reset
    end_after: int | None = None  # then the body ends, as if it were whole
    raw: bytes | None = None  # sent in place of an HTTP answer
    pace: tuple[int, float] | None = None  # so many bytes at a time, with so many seconds between

    def extent(self) -> tuple[int, int]:
        """Return where the body starts and stops in the content."""
        if self.window is None:
            return 0, self.content.size
        return self.window[0], min(self.window[1], self.content.size)

    def all_headers(self) -> CIMultiDict[str]:
        """Return the headers with those that follow from the body."""
        headers = self.headers.copy()
        start, stop = self.extent()
        if self.window is not None:
            headers["content-range"] = f"bytes {start}-{stop - 1}/{self.content.size}"
        if not self.chunked and self.status != 304:
            headers["content-length"] = str(stop - start)
        return headers


def json_answer(status: int, document: Any, **headers: str) -> Answer:
    """Return a JSON document, with underscores in `headers` as hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps(document, separators=(",", ":")).encode()
    return Answer(status, CIMultiDict({"content-type": "application/json"} | named), Bytes(body))


def registry_error(status: int, code: str, message: str, detail: object = None) -> Answer:
    """Return the distribution spec's error document."""
    return json_answer(status, {"errors": [{"code": code, "message": message, "detail": detail}]})


def xml_error(status: int, code: str, message: str) -> Answer:
    """Return an error as S3 and its relatives word it."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer(status, CIMultiDict({"content-type": "application/xml"}), Bytes(body.encode()))


def redirect(location: str, status: int = 307) -> Answer:
    """Return a redirect as registry-1.docker.io words it: no digest, no Accept-Ranges."""
    headers = {"content-type": "application/octet-stream", "location": location}
    return Answer(status, CIMultiDict(headers))


def ranged(content: Content, headers: dict[str, str], range_header: str | None) -> Answer:
    """Return the content, or the part of it that a single Range asks for; other ranges are ignored."""
    answer = Answer(200, CIMultiDict(headers | {"accept-ranges": "bytes"}), content)
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", range_header or "")
    if found is None or found[0] == "bytes=-":
        return answer
    first, last = found[1], found[2]
    if not first:
        start, stop = max(0, content.size - int(last)), content.size
    else:
        start, stop = int(first), min(int(last) + 1, content.size) if last else content.size
    if start >= content.size:
        refusal = xml_error(416, "InvalidRange", "The requested range is not satisfiable")
        refusal.headers["content-range"] = f"bytes */{content.size}"
        return refusal
    if stop <= start:
        return answer
    answer.status, answer.window = 206, (start, stop)
    return answer
