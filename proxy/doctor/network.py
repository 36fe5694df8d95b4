"""Names, connections and certificates, below HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from typing import Final

import aiohttp
from yarl import URL

from proxy.config import UpstreamOptions
from proxy.doctor.judge.network import TIMED_OUT, Attempt
from proxy.doctor.judge.tls import Handshake, parse_date
from proxy.doctor.threads import in_thread
from proxy.upstream.failures import FOREIGN
from proxy.upstream.tls import tls_context

HANDSHAKE_SECONDS: Final = 10.0
_MAX_ADDRESSES: Final = 4
_DATES: Final = frozenset({9, 10})
"""OpenSSL's numbers for a certificate that is not valid yet, or no more."""


async def resolve(host: str) -> list[str]:
    """The addresses of a host in the system's order; none if its name is unknown."""

    def look_up() -> list[str]:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return []
        return list(dict.fromkeys(str(each[4][0]) for each in found))

    return await in_thread(look_up)


async def connect(addresses: list[str], port: int, seconds: float) -> list[Attempt]:
    """One address after the other, until one connects."""
    attempts = []
    for address in addresses[:_MAX_ADDRESSES]:
        attempts.append(await _connect(address, port, seconds))
        if attempts[-1].problem is None:
            break
    return attempts


async def _connect(address: str, port: int, seconds: float) -> Attempt:
    began = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return Attempt(address, TIMED_OUT)
    except OSError as error:
        return Attempt(address, error.errno or TIMED_OUT)
    await _close(writer)
    return Attempt(address, None, time.monotonic() - began)


async def handshake(options: UpstreamOptions, url: URL, address: str) -> Handshake:
    """A TLS handshake with this address, verified as our requests to the upstream are."""
    context = await in_thread(lambda: tls_context(options))
    try:
        _, writer = await asyncio.open_connection(
            address, url.port, ssl=context, server_hostname=url.host, ssl_handshake_timeout=HANDSHAKE_SECONDS
        )
    except ssl.SSLCertVerificationError as refused:
        their_time = await _unverified_time(url) if refused.verify_code in _DATES else None
        return Handshake(refused=refused.verify_code, reason=refused.verify_message, their_time=their_time)
    except ssl.SSLError as error:
        return Handshake(reason=(error.reason or "the handshake failed").replace("_", " ").lower())
    except OSError:
        return Handshake(reason="the connection broke, or the handshake came to no end")
    certificate = writer.get_extra_info("peercert") or {}
    version = writer.get_extra_info("ssl_object").version() or "TLS"
    await _close(writer)
    not_after = certificate.get("notAfter")
    return Handshake(version=version, not_after=ssl.cert_time_to_seconds(not_after) if not_after else None)


async def _unverified_time(url: URL) -> float | None:
    """What the server's clock says, without knowing who it is: nothing secret is sent, and it is only a hint."""
    timeout = aiohttp.ClientTimeout(total=10)
    with contextlib.suppress(*FOREIGN):
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.head(url / "v2/", ssl=False, allow_redirects=False) as response,
        ):
            return parse_date(response.headers.get("Date"))
    return None


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
