"""Clients of many kinds, all of which look at every byte they get."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from endurance.goods import KIB, MIB, Blob, Goods, Tag

PATIENCE_SECONDS: Final = 60.0
"""A client that gets no byte for so long has hung."""
THINKING_SECONDS: Final = 0.1
_MAY_BE: Final = frozenset({200, 206, 304, 404, 429, 503})
"""Answers of a cache whose upstream may be in trouble."""
_SLOW_PIECE: Final = 256 * KIB


@dataclass
class Findings:
    """What the clients saw."""

    answers: Counter[str] = field(default_factory=Counter)
    """By status; `lost` are connections that broke before the headers."""
    right_bytes: int = 0
    complete: int = 0
    broken: int = 0
    left: int = 0
    lied_to: int = 0
    """Answers that held wrong bytes of upstream's and were no whole blob: broken off, or a range of a running fill,
    which is given before the digest can be known."""
    wrong: list[str] = field(default_factory=list)
    """What must never be: wrong bytes, short bodies that end as if whole, a 500, a client that hangs."""

    def __str__(self) -> str:
        answers = ", ".join(f"{count} x {status}" for status, count in sorted(self.answers.items()))
        return f"{answers}; {self.complete} bodies whole, {self.broken} broken off, {self.left} left by the client"


@dataclass
class _Reading:
    """A body that arrives."""

    blob: Blob
    part: range
    received: int = 0
    right: int = 0
    broken: bool = False
    wrong: list[int] = field(default_factory=list)
    """Where pieces began that were not right."""

    def take(self, piece: bytes) -> None:
        """Compare the next piece."""
        start = self.part.start + self.received
        if piece == self.blob.content.read(start, start + len(piece)):
            self.right += len(piece)
        else:
            self.wrong.append(start)
        self.received += len(piece)


class Crowd:
    """So many clients at once, each doing one thing after another. `url` tells where the cache is; empty: nowhere.

    Where upstream never lies, every wrong byte is the cache's fault; where it may, only those of what arrives as a
    whole blob, or was stored.
    """

    def __init__(
        self, goods: Goods, url: Callable[[], str], rng: random.Random, *, upstream_lies: bool = False
    ) -> None:
        self.findings = Findings()
        self._goods = goods
        self._url = url
        self._rng = rng
        self._upstream_lies = upstream_lies
        self._kinds: list[tuple[Callable[[aiohttp.ClientSession], Awaitable[None]], int]] = [
            (self._pulls_an_image, 4),
            (self._pulls_a_blob, 3),
            (self._asks_for_a_range, 2),
            (self._asks_for_headers, 1),
            (self._leaves, 1),
            (self._reads_slowly, 1),
        ]

    async def run(self, clients: int) -> None:
        """Until it is cancelled."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE_SECONDS)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(clients):
                group.create_task(self._go_on(session))

    async def pull_everything(self) -> None:
        """Every tag and all it needs, once, one after the other."""
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            for tag in self._goods.tags:
                await self._pull_image_of(session, tag)

    async def _go_on(self, session: aiohttp.ClientSession) -> None:
        kinds, weights = zip(*self._kinds, strict=True)
        while True:
            if not self._url():
                await asyncio.sleep(0.01)
                continue
            act = self._rng.choices(kinds, weights)[0]
            await asyncio.sleep(self._rng.uniform(0, THINKING_SECONDS))
            try:
                await act(session)
            except TimeoutError:
                self.findings.wrong.append(f"{act.__name__} hung: no byte for {PATIENCE_SECONDS:g} s")
            except (aiohttp.ClientError, ConnectionError):
                self.findings.answers["lost"] += 1
                await asyncio.sleep(0.005)  # As clients do, rather than knocking as fast as they can.

    async def _pulls_an_image(self, session: aiohttp.ClientSession) -> None:
        await self._pull_image_of(session, self._rng.choice(self._goods.tags))

    async def _pull_image_of(self, session: aiohttp.ClientSession, tag: Tag) -> None:
        known = {image.digest: image for image in tag.images}
        accept = {"Accept": tag.images[-1].media_type}
        async with session.get(self._url() + tag.path, headers=accept) as response:
            if not self._counted(response, tag.path):
                return
            body = await response.read()
            image = known.get(response.headers.get("Docker-Content-Digest", ""))
        image = image or next((each for each in tag.images if each.body == body), None)
        if image is None or image.body != body:
            self.findings.wrong.append(f"{tag.path}: a manifest that is none of the tag's")
            return
        self.findings.complete += 1
        self.findings.right_bytes += len(body)
        await asyncio.gather(*(self._read(session, blob) for blob in self._goods.blobs_of(image)))

    async def _pulls_a_blob(self, session: aiohttp.ClientSession) -> None:
        await self._read(session, self._blob())

    async def _asks_for_a_range(self, session: aiohttp.ClientSession) -> None:
        blob = self._blob()
        start = self._rng.randrange(blob.size)
        stop = min(blob.size, start + self._rng.randint(1, MIB))
        await self._read(session, blob, range(start, stop))

    async def _asks_for_headers(self, session: aiohttp.ClientSession) -> None:
        blob = self._blob()
        async with session.head(self._url() + blob.path) as response:
            if self._counted(response, blob.path) and response.headers.get("Content-Length") != str(blob.size):
                self.findings.wrong.append(f"{blob.path}: HEAD tells another size")

    async def _leaves(self, session: aiohttp.ClientSession) -> None:
        blob = self._blob()
        await self._read(session, blob, leave_after=self._rng.randrange(blob.size))

    async def _reads_slowly(self, session: aiohttp.ClientSession) -> None:
        await self._read(session, self._blob(), pause=0.02)

    async def _read(
        self,
        session: aiohttp.ClientSession,
        blob: Blob,
        part: range | None = None,
        *,
        leave_after: int | None = None,
        pause: float = 0.0,
    ) -> None:
        """Read a blob or a part of it, and compare each piece with what it should be."""
        headers = {} if part is None else {"Range": f"bytes={part.start}-{part.stop - 1}"}
        async with session.get(self._url() + blob.path, headers=headers) as response:
            if not self._counted(response, blob.path):
                return
            if part is None or response.status == 200:  # A Range may be ignored.
                part = range(blob.size)
            reading = _Reading(blob, part)
            try:
                while piece := await (response.content.read(_SLOW_PIECE) if pause else response.content.readany()):
                    reading.take(piece)
                    if leave_after is not None and reading.received > leave_after:
                        response.close()
                        self.findings.left += 1
                        return
                    if pause:
                        await asyncio.sleep(pause)
            except (aiohttp.ClientError, ConnectionError):
                self.findings.broken += 1
                reading.broken = True
            stored = response.status == 200 or "hit" in response.headers.get("Cache-Status", "")
            self._judge(reading, may_lie=self._upstream_lies and (reading.broken or not stored))

    def _judge(self, reading: _Reading, *, may_lie: bool) -> None:
        """A body has ended, as it said it would or not."""
        found = self.findings
        found.right_bytes += reading.right
        if reading.wrong and may_lie:
            found.lied_to += 1
        elif reading.wrong:
            found.wrong.append(f"{reading.blob.path}: wrong bytes, the first at {reading.wrong[0]}")
        elif not reading.broken and reading.received != len(reading.part):
            found.wrong.append(f"{reading.blob.path}: {reading.received} bytes of {len(reading.part)} and a clean end")
        elif not reading.broken:
            found.complete += 1

    def _counted(self, response: aiohttp.ClientResponse, path: str) -> bool:
        """Whether there is content."""
        self.findings.answers[str(response.status)] += 1
        if response.status not in _MAY_BE:
            self.findings.wrong.append(f"{path}: status {response.status}")
        return response.status in (200, 206)

    def _blob(self) -> Blob:
        return self._rng.choice(self._goods.blobs)
