"""Sends one message to the webhook that is configured.

Nothing of the receiver's is trusted: it may hang, redirect (which is not followed, since it would take the message, and
the path that is a password, elsewhere) and answer whatever it wants. Every message has a connection of its own: they
are few, and the file that holds the URL and the system's certificates may change between them.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import Final

import aiofiles
import aiohttp
from yarl import URL

from proxy import __version__
from proxy.clock import Clock
from proxy.config import WebhookOptions, parse_hook
from proxy.oci.errors import Unavailable
from proxy.policy.quota import parse_retry_after
from proxy.upstream.failures import FOREIGN, describe
from proxy.upstream.proxies import Proxies

SEND_SECONDS: Final = 10.0
_MAX_FILE_CHARACTERS: Final = 64 * 1024
_MAX_WORD_BYTES: Final = 40
_WORD: Final = re.compile(rb"[a-z_]{1,40}")
"""Slack says in one what is wrong: no_service, channel_is_archived, invalid_blocks."""
_PASSING: Final = frozenset({408, 425, 429})
_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"pullthrough/{__version__}",
}


class Undelivered(Exception):
    """The message did not arrive, as far as is known; why, without the URL.

    `hopeless`: the same message will not arrive later either. `retry_after` is for how many seconds the receiver wants
    to be left alone, if it said so.
    """

    def __init__(self, why: str, *, hopeless: bool = False, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.hopeless = hopeless
        self.retry_after = retry_after


async def send(options: WebhookOptions, message: bytes, clock: Clock) -> str:
    """Have it arrive; what was told, and with which status it was answered. Raises Undelivered."""
    url = await _url(options)
    failure = ""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            status, retry_after, word = await _post(url, message)
    except (*FOREIGN, ValueError) as error:
        failure = describe(error)
    except Unavailable as error:  # Of the proxy; it names no URL.
        failure = error.message
    if failure:  # Raised out here: no traceback leads to an exception that holds the URL.
        raise Undelivered(f"{url.host}: {failure}")
    said = f"{url.host} answered {status}{f' ({word})' if word else ''}"
    if 200 <= status < 300:
        return said
    if 300 <= status < 400:
        said += ", a redirect, which is not followed"
    wait = parse_retry_after(retry_after, clock.time())
    raise Undelivered(said, hopeless=status < 500 and status not in _PASSING, retry_after=wait)


async def _post(url: URL, message: bytes) -> tuple[int, str | None, str]:
    """Status, Retry-After, and the receiver's word for what is wrong."""
    proxy = Proxies.configured(None).proxy_for(url)
    login = proxy.headers if proxy else {}
    context = await asyncio.to_thread(ssl.create_default_context)
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=_HEADERS if url.scheme == "https" else {**_HEADERS, **login},
        ) as session,
        session.post(
            url, data=message, allow_redirects=False, proxy=proxy.url if proxy else None, proxy_headers=login
        ) as response,
    ):
        said = await response.content.read(_MAX_WORD_BYTES + 1) if response.status >= 400 else b""
        word = said.strip().decode() if _WORD.fullmatch(said.strip()) else ""
        return response.status, response.headers.get("Retry-After"), "" if word in str(url) else word


async def _url(options: WebhookOptions) -> URL:
    """Used exactly as it is written. Raises Undelivered."""
    secret = options.url
    if options.url_file is not None:
        try:
            async with aiofiles.open(options.url_file, encoding="utf-8") as file:
                secret = parse_hook(await file.read(_MAX_FILE_CHARACTERS))
        except (OSError, ValueError):  # UnicodeDecodeError is one.
            secret = None
        if secret is None:
            raise Undelivered(f"{options.url_file} cannot be read, or holds no URL")
    if secret is None:
        raise Undelivered("no URL is configured")
    return URL(secret.reveal(), encoded=True)
