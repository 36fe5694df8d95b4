"""Where exceptions of other people's code end: beyond here there are only `RegistryError`s.

Texts are made from the class of the failure, never from its own text: aiohttp puts whole URLs, with the signed query of
a redirect, into some. For the same reason the cause is not shown (`from None`).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import ClassVar, Final

import aiohttp

from proxy.oci.errors import Unavailable

FOREIGN: Final = (aiohttp.ClientError, OSError, UnicodeError)
"""What sending a request and reading its answer can raise. TimeoutError is an OSError; a host name that cannot be
encoded is a UnicodeError."""

SMALL_SECONDS: Final = 25.0
"""The bound of everything but a blob's body: clients wait 30 s for headers (PROTOCOL 8.10)."""


class PrivateAddress(OSError):
    """A connection that is not made: see `connections`."""

    words: ClassVar[str] = "it sends us to a private address, which a public registry may not"


class Unasked(Unavailable):
    """No answer came: no connection, a time-out, a broken connection, or a 5xx, which is none."""


@contextmanager
def border(upstream: str) -> Iterator[None]:
    """Turns every foreign exception into Unasked, said of this upstream."""
    try:
        yield
    except FOREIGN as error:
        raise Unasked(f"{upstream}: {describe(error)}") from None


@asynccontextmanager
async def bounded(upstream: str, at_least: float = 0.0) -> AsyncIterator[None]:
    """A border that also ends what takes longer than SMALL_SECONDS, or than `at_least` if that is more."""
    with border(upstream):
        async with asyncio.timeout(max(SMALL_SECONDS, at_least)):
            yield


def describe(error: BaseException) -> str:
    """A failure in words that hold no URL."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return "no connection within the connect time-out"
        case aiohttp.SocketTimeoutError():
            return "nothing arrived within the idle time-out"
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as refused):
            return f"its certificate was refused ({refused.verify_message})"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "TLS failed"
        case aiohttp.ClientConnectorDNSError():
            return "its host name does not resolve"
        case aiohttp.ClientProxyConnectionError():
            return "the HTTP proxy cannot be reached"
        case aiohttp.ClientHttpProxyError():
            return f"the HTTP proxy refused with status {error.status}"
        case aiohttp.ClientConnectorError(os_error=PrivateAddress()):
            return PrivateAddress.words
        case aiohttp.ClientConnectorError(errno=int() as number):
            return f"no connection ({os.strerror(number)})"
        case aiohttp.ClientConnectorError():
            return "no connection"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | OSError():
            return "the connection broke"
        case aiohttp.ClientResponseError():
            return "an answer that is not HTTP"
        case _:
            return f"the request failed ({type(error).__name__})"
