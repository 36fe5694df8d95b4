"""One request to an upstream, through all its redirects, which are followed by hand (PROTOCOL 3, 8.9):

- a Location is used exactly as it was written, since signatures in it do not survive being quoted anew;
- `Authorization` goes only to the origin that was asked, `Range` to every hop;
- from https never to http.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from proxy.config import UpstreamOptions
from proxy.metrics import Metrics
from proxy.oci.errors import Unavailable
from proxy.upstream.connections import Connections
from proxy.upstream.failures import FOREIGN
from proxy.upstream.redirects import MAX_REDIRECTS, REDIRECTS, origin, redirect_target
from proxy.upstream.retries import is_passing_answer, is_passing_failure, pause


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """An open response. `elsewhere`: it comes from another server, to which the one that was asked redirected us."""

    response: aiohttp.ClientResponse
    elsewhere: bool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        return self.response.headers

    async def read(self, limit: int) -> bytes | None:
        """The body, or None if it is of more than `limit` bytes."""
        if (content_length(self.headers) or 0) > limit:
            return None
        body = bytearray()
        while chunk := await self.response.content.readany():
            body += chunk
            if len(body) > limit:
                return None
        return bytes(body)

    def close(self) -> None:
        """Give the connection back if the body has come whole, else close it: nothing is drained."""
        self.response.close()


class Transport:
    """Requests to one upstream and to where it redirects; `redirected` is called when the registry sends us there."""

    def __init__(
        self, options: UpstreamOptions, metrics: Metrics, redirected: Callable[[], None] = lambda: None
    ) -> None:
        self.name = options.name
        self._connections = Connections(options)
        self._metrics = metrics
        self._redirected = redirected

    async def start(self) -> None:
        """Ready to send; nothing is sent yet. Raises OSError for a file of certificates that cannot be used."""
        await self._connections.start()

    async def aclose(self) -> None:
        """Close every connection, those in use too."""
        await self._connections.aclose()

    async def request(
        self,
        kind: str,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        authorization: str | None,
        *,
        same_origin: bool = False,
    ) -> Answer:
        """The answer at the end of all redirects; `same_origin` refuses those to elsewhere.

        What fails at the registry itself in a way that may pass is sent once more: see `retries`. Raises Unavailable
        for a redirect that is not followed and for an encoded body; failures of the connection come as they are, for
        `border`. aiohttp too sends a request again, once, when a kept connection breaks under it.
        """
        home = origin(url)
        for _ in range(MAX_REDIRECTS + 1):
            own = origin(url) == home
            sent = {**headers, "Authorization": authorization} if authorization and own else headers
            response = await (self._send_twice if own else self._send)(kind, method, url, sent)
            if response.status not in REDIRECTS:
                return self._plain(Answer(response, elsewhere=origin(url) != home))
            response.close()
            url = redirect_target(self.name, url, response.headers.get("Location"))
            if same_origin and origin(url) != home:
                raise Unavailable(f"{self.name}: a redirect to another host, where none may be")
            if own and not same_origin:
                self._redirected()
        raise Unavailable(f"{self.name}: more than {MAX_REDIRECTS} redirects")

    async def _send_twice(self, kind: str, method: str, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """The first answer, or the second if the first is a failure that may pass."""
        try:
            response = await self._send(kind, method, url, headers)
        except FOREIGN as error:
            if not is_passing_failure(kind, method, error):
                raise
        else:
            if not is_passing_answer(kind, method, response):
                return response
            response.close()
        self._metrics.upstream_retried(self.name, kind)
        await asyncio.sleep(pause())
        return await self._send(kind, method, url, headers)

    async def _send(self, kind: str, method: str, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        session, proxy = self._connections.to(url)
        login = proxy.headers if proxy else {}
        if url.scheme == "http":  # No tunnel: the proxy reads the request itself.
            headers = {**headers, **login}
        try:
            response = await session.request(
                method,
                url,
                headers=headers,
                allow_redirects=False,
                proxy=proxy.url if proxy else None,
                proxy_headers=login,
            )
        except FOREIGN:
            self._metrics.upstream_response(self.name, kind, None)
            raise
        self._metrics.upstream_response(self.name, kind, response.status)
        return response

    def _plain(self, answer: Answer) -> Answer:
        """Digests are over what is stored, so an encoding that was not asked for makes a body useless."""
        if answer.status < 300 and answer.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
            answer.close()
            raise Unavailable(f"{self.name}: an answer with a Content-Encoding that was not asked for")
        return answer


def content_length(headers: Mapping[str, str]) -> int | None:
    """The Content-Length in bytes; None if there is none or it is not a number below `SIZE_LIMIT`."""
    text = headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
