"""More connections for one blob: parts of it (RFC 9110 section 14), from where its first answer came.

A redirect's target is asked again directly, without the registry: that is one question less for each part, and
signed URLs live for minutes. Once it answers anything else than the part, the registry is asked for a fresh one. An
upstream that ignores ranges, or says that it is asked too much, gets one connection a blob for ALONE_SECONDS.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Final

from yarl import URL

from proxy.clock import Clock
from proxy.config import UpstreamOptions
from proxy.metrics import Metrics
from proxy.oci.errors import BlobUnknown, RegistryError, Unavailable
from proxy.oci.names import Repository
from proxy.policy.quota import Gate, Limits
from proxy.upstream.auth import Authorizer
from proxy.upstream.body import BlobBody
from proxy.upstream.failures import FOREIGN, bounded
from proxy.upstream.questions import Questions
from proxy.upstream.refusals import Refusals
from proxy.upstream.transport import Answer, Transport

ALONE_SECONDS: Final = 600.0


class Further:
    """What one upstream is asked for parts with, and whether it takes that."""

    def __init__(
        self,
        options: UpstreamOptions,
        transport: Transport,
        auth: Authorizer,
        refusals: Refusals,
        limits: Limits,
        questions: Questions,
        transfers: asyncio.Semaphore | None,
        passing: Callable[[Gate], Awaitable[None]],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        """`passing` returns when a kind of request may be sent."""
        self.name = options.name
        self.most = options.connections
        self.idle_timeout = options.idle_timeout
        self.transport = transport
        self.auth = auth
        self.refusals = refusals
        self.transfers = transfers
        self.passing = passing
        self.metrics = metrics
        self._limits = limits
        self._questions = questions
        self._clock = clock
        self._alone_until = float("-inf")

    @property
    def allowed(self) -> bool:
        """Whether several connections may be used at all."""
        return self.most > 1 and self._clock.monotonic() >= self._alone_until

    def welcome(self) -> bool:
        """Whether one more may be made now: nothing says that upstream is asked too much, and a transfer is free."""
        return (
            self.allowed
            and self._limits.closed_for(Gate.REQUESTS, self._clock.monotonic()) is None
            and self._questions.breaker_open_for() is None
            and not (self.transfers is not None and self.transfers.locked())
        )

    def refuse(self) -> None:
        """One connection a blob from now on, for a while."""
        self._alone_until = self._clock.monotonic() + ALONE_SECONDS

    def of(self, repository: Repository, url: URL, answer: Answer, size: int) -> BlobParts | None:
        """Parts of a blob of this size, with this URL at the registry and this first answer; None if not allowed."""
        if not self.allowed or answer.headers.get("Accept-Ranges", "").lower() == "none":
            return None
        return BlobParts(self, repository, url, answer, size)


class BlobParts:
    """Parts of one blob of `size` bytes, whose first answer is given."""

    def __init__(self, further: Further, repository: Repository, url: URL, answer: Answer, size: int) -> None:
        self.most = further.most
        self.refused = False
        self._further = further
        self._repository = repository
        self._url = url
        self._size = size
        self._place: URL | None = None
        self._etag: str | None = None
        self._remember(answer)

    def __repr__(self) -> str:
        return f"<BlobParts of {self._further.name}, size {self._size}>"

    def welcome(self) -> bool:
        """Whether one more connection may be made now."""
        return self._further.welcome()

    @asynccontextmanager
    async def open(self, start: int, stop: int, *, further: bool) -> AsyncIterator[BlobBody]:
        """The bytes from `start` to `stop`, and nothing else. Raises RegistryError.

        A `further` connection takes one of the upstream's `transfers`, which has to be free: see `welcome`.
        """
        transfers = self._further.transfers if further else None
        async with transfers or nullcontext():
            async with bounded(self._further.name, at_least=self._further.idle_timeout):
                body = await self._open(start, stop)
            try:
                yield body
            finally:
                body.close()

    async def _open(self, start: int, stop: int) -> BlobBody:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        answer = await self._ask_again(headers)
        anew = answer is None
        if answer is None:
            await self._further.passing(Gate.REQUESTS)
            answer = await self._further.auth.request("blob", "GET", self._url, self._repository, headers)
        try:
            await self._check(answer)
            body = self._part(answer, start, stop)
        except BaseException:
            answer.close()
            raise
        if anew:
            self._remember(answer)
        return body

    def _part(self, answer: Answer, start: int, stop: int) -> BlobBody:
        further = self._further
        try:
            body = BlobBody(further.name, answer, start, further.idle_timeout, further.metrics, stop=stop)
            if body.size != self._size:
                raise Unavailable(f"{further.name} says {body.size} bytes now and said {self._size} before")
        except Unavailable:
            self._refuse()
            raise
        return body

    async def _ask_again(self, headers: dict[str, str]) -> Answer | None:
        """The answer of where the last redirect led; None if that does not help."""
        place, etag = self._place, self._etag
        if place is None:
            return None
        try:
            transport = self._further.transport
            answer = await transport.request("blob", "GET", place, headers, None, same_origin=True)
        except (RegistryError, *FOREIGN):
            self._forget(place)
            raise
        if answer.status == 206 and answer.headers.get("ETag") != etag:
            answer.close()
            self._forget(place)
            raise Unavailable(f"{self._further.name}: the content has changed")
        if answer.status in (200, 206, 429):
            return Answer(answer.response, elsewhere=True)
        answer.close()
        self._forget(place)
        return None

    async def _check(self, answer: Answer) -> None:
        """Raises RegistryError for anything but a part."""
        name = self._further.name
        if answer.status == 206:
            return
        if answer.status in (200, 416, 429) or "Retry-After" in answer.headers:
            self._refuse()
        if answer.status == 200:
            raise Unavailable(f"{name}: the whole blob where a part of it was asked for")
        raise await self._further.refusals.of(answer, BlobUnknown)

    def _refuse(self) -> None:
        self.refused = True
        self._further.refuse()

    def _remember(self, answer: Answer) -> None:
        self._place = answer.response.url if answer.elsewhere else None
        self._etag = answer.headers.get("ETag")

    def _forget(self, place: URL) -> None:
        if self._place == place:
            self._place = None
