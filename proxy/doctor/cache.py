"""The running cache, as its clients see it."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from proxy.config import Address
from proxy.doctor.hosts import Place, reachable_host
from proxy.doctor.judge.listeners import Presence, Seen
from proxy.upstream.failures import FOREIGN, describe

_TIMEOUT_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 2.0
_MAX_BODY_BYTES: Final = 16 * 2**20
_SERVER: Final = "pullthrough"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer of the cache."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class Unanswered(Exception):
    """No whole answer came. The message says why, and holds no URL."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class RunningCache:
    """Asks the cache; `given` says that its URL was named on the command line, and is perhaps of another machine."""

    def __init__(self, listen: Address, url: str | None, scheme: str = "http") -> None:
        self.given = url is not None
        self.place = Place.parse(url) if url else place_of(listen, scheme)
        self._seen: Seen | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # The cache of this machine is asked by its address, which a certificate is rarely for; nothing secret is sent.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.given),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": "pullthrough-doctor"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def seen(self) -> Seen | None:
        """Who is there, looked at once; None if the address cannot be known."""
        if self._seen is None and self.place is not None:
            self._seen = await self._look()
        return self._seen

    async def is_ours(self) -> bool | None:
        """Whether the cache itself answers; None if that cannot be known."""
        seen = await self.seen()
        return None if seen is None else seen.presence is Presence.OURS

    async def _look(self) -> Seen:
        try:
            reply = await self.get("/v2/", seconds=_LOOK_SECONDS)
        except Unanswered as error:
            return Seen(Presence.NOBODY if error.refused else Presence.UNREACHABLE, str(error))
        if reply.headers.get("Server") != _SERVER or reply.status != 200:
            return Seen(Presence.SOMEBODY_ELSE, f"/v2/ was answered {reply.status}, and not by pullthrough")
        return Seen(Presence.OURS, "answers /v2/")

    async def get(self, path: str, *, head: bool = False, seconds: float = _TIMEOUT_SECONDS) -> Reply:
        """The answer of the client listener; `path` is sent as it is. Raises Unanswered."""
        assert self.place is not None
        return await self.ask(self.place, path, head=head, seconds=seconds)

    async def ask(
        self,
        place: Place,
        path: str,
        *,
        head: bool = False,
        seconds: float = _TIMEOUT_SECONDS,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """The answer of any listener. Raises Unanswered."""
        assert self._session is not None
        url, timeout = URL(f"{place}{path}", encoded=True), aiohttp.ClientTimeout(total=seconds)
        method = "HEAD" if head else "GET"
        try:
            async with self._session.request(
                method, url, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return Reply(response.status, response.headers, b"" if head else await _whole(response.content))
        except FOREIGN as error:
            refused = isinstance(error, OSError) and error.errno == errno.ECONNREFUSED
            raise Unanswered(describe(error), refused=refused) from None


async def _whole(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    while chunk := await content.readany():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise Unanswered(f"the answer is of more than {_MAX_BODY_BYTES} bytes")
    return bytes(body)


def place_of(listen: Address, scheme: str = "http") -> Place | None:
    """Where to ask for what listens at a configured address; None for a port that the system chooses."""
    return Place(scheme, reachable_host(listen.host), listen.port) if listen.port else None
