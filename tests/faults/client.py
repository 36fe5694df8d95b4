"""A client of a cache that something happens to, and what no fault may do to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True)
class Received:
    """What a client got. `status` 0: nothing; `whole`: the response ended as it said it would."""

    status: int
    code: str = ""
    cache_status: str = ""
    body: bytes = b""
    whole: bool = True

    def __str__(self) -> str:
        if self.status == 0:
            return "no answer"
        if self.code:
            return f"{self.status} {self.code}"
        how = "whole and right" if self.whole else "broken off"
        return f"{self.status}, {how}{self._outcome()}"

    def _outcome(self) -> str:
        """The part of Cache-Status that tells a hit, a miss or stale."""
        words = [word.strip() for word in self.cache_status.split(";")[1:]]
        told = [word for word in words if word.startswith(("hit", "fwd=", "detail=", "collapsed"))]
        return f" ({'; '.join(told)})" if told else ""


async def received(opening: Any, body: bytearray | None = None) -> Received:
    """Read a response to its end, however it ends; what has arrived of its body is in `body` meanwhile."""
    body = bytearray() if body is None else body
    try:
        async with opening as response:
            outcome = response.headers.get("Cache-Status", "")
            try:
                async for chunk in response.content.iter_any():
                    body += chunk
            except (aiohttp.ClientError, ConnectionError):
                return Received(response.status, "", outcome, bytes(body), whole=False)
    except (aiohttp.ClientError, ConnectionError):
        return Received(0)
    code = "" if response.status < 400 else code_of(bytes(body))
    return Received(response.status, code, outcome, bytes(body))


def code_of(body: bytes) -> str:
    """The specification's code of an error; every error of ours has one."""
    return str(json.loads(body)["errors"][0]["code"])


def assert_harmless(got: Received, *contents: bytes) -> None:
    """What no fault may do to a client: a 500, an error without its JSON, wrong or short content that looks whole."""
    assert got.status != 500
    assert got.status in (0, 200, 206) or got.code
    if got.status == 200 and got.whole:
        assert got.body in contents, "wrong bytes arrived complete"


async def bounded(doing: Awaitable[Received], seconds: float) -> Received:
    """Fail if it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            return await doing
    except TimeoutError:
        raise AssertionError(f"the client hung: no end within {seconds:g} s") from None
