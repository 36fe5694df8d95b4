"""The way to the upstream: names, connections, TLS, redirects, and answers that are hardly HTTP."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from proxy.config import UpstreamOptions
from tests.authority import DAY, Authority
from tests.fake_hub import at, spoilt
from tests.fake_hub.faults import Target
from tests.faults.pulling import Act, fault
from tests.faults.stand import Asked, Stand

_NO_SUCH_NAME = f"http://{'a' * 70}.invalid"
_NOBODY = "http://127.0.0.1:1"
_BLOB = at("blob", method="GET")
_HEAD = at("manifest", method="HEAD")


def _lives_at(url: str) -> Act:
    """Let the upstream's address be another, as if its name led there now."""
    return lambda stand: _point(stand, url)


async def _point(stand: Stand, url: str, ca: Path | None = None) -> None:
    upstream = UpstreamOptions(name="docker.io", url=url, ca=ca, connect_timeout=2.0, idle_timeout=0.4)
    stand.cache.options = {"upstreams": (upstream,)}
    await stand.cache.restart()


async def _point_back(stand: Stand) -> None:
    stand.cache.options = {}
    await stand.cache.restart()


async def _presents(stand: Stand, context: ssl.SSLContext, ca: Path | None) -> None:
    """Let the upstream be a server with this certificate, which nobody comes to talk to."""

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0, ssl=context)
    stand.after.push_async_callback(server.wait_closed)
    stand.after.callback(server.close)
    await _point(stand, f"https://localhost:{server.sockets[0].getsockname()[1]}", ca)


async def _unknown_authority(stand: Stand) -> None:
    await _presents(stand, Authority().sign(stand.folder, "localhost", -DAY, DAY), Authority().write(stand.folder))


async def _expired(stand: Stand) -> None:
    authority = Authority()
    await _presents(stand, authority.sign(stand.folder, "localhost", -2 * DAY, -DAY), authority.write(stand.folder))


async def _another_name(stand: Stand) -> None:
    authority = Authority()
    await _presents(stand, authority.sign(stand.folder, "other.example", -DAY, DAY), authority.write(stand.folder))


async def _no_tls(stand: Stand) -> None:
    await _point(stand, stand.hub.url.replace("http:", "https:"))


def _gone(*listeners: str) -> Act:
    return lambda stand: stand.hub.gone(*listeners)


def _back(*listeners: str) -> Act:
    return lambda stand: stand.hub.back(*listeners)


def _redirecting(target: Target, url: str) -> Act:
    return lambda stand: stand.hub.redirect_to(target, url)


def _spoilt(target: Target, change: spoilt.Change, *, content_only: bool = True) -> Act:
    return lambda stand: stand.hub.change(target, change, content_only=content_only)


async def _realm_elsewhere(stand: Stand) -> None:
    stand.hub.realm = f"{stand.hub.stranger_url}/token"
    await stand.cache.restart()  # It would go on with the realm that it knows.


async def _realm_at_home(stand: Stand) -> None:
    stand.hub.realm = f"{stand.hub.token_url}/token"
    await stand.cache.restart()


async def _broken_and_well(stand: Stand) -> None:
    stand.hub.heal()
    await stand.hub.gone("registry")
    await stand.hub.back("registry")


CONNECTIONS = (
    fault("the upstream's name does not resolve", Asked.OLD_TAG, _lives_at(_NO_SUCH_NAME), mend=_point_back),
    fault("the upstream's name does not resolve", Asked.COLD_BLOB, _lives_at(_NO_SUCH_NAME), mend=_point_back),
    fault("the upstream's name does not resolve", Asked.WARM_BLOB, _lives_at(_NO_SUCH_NAME), mend=_point_back),
    fault("connections to the upstream are refused", Asked.OLD_TAG, _lives_at(_NOBODY), mend=_point_back),
    fault("connections to the upstream are refused", Asked.COLD_BLOB, _gone(), mend=_back()),
    fault("connections to the CDN are refused", Asked.COLD_BLOB, _gone("cdn"), mend=_back("cdn")),
    fault("connections to the token server are refused", Asked.COLD_BLOB, _gone("token"), mend=_back("token")),
    fault("the upstream accepts and says nothing", Asked.OLD_TAG, lambda s: s.hub.hang("any")),
    fault("the upstream accepts and says nothing", Asked.NEW_TAG, lambda s: s.hub.hang("any")),
    fault("its certificate is of an unknown authority", Asked.OLD_TAG, _unknown_authority, mend=_point_back),
    fault("its certificate is of an unknown authority", Asked.COLD_BLOB, _unknown_authority, mend=_point_back),
    fault("its certificate has expired", Asked.COLD_BLOB, _expired, mend=_point_back),
    fault("its certificate is for another name", Asked.COLD_BLOB, _another_name, mend=_point_back),
    fault("it speaks no TLS where it should", Asked.COLD_BLOB, _no_tls, mend=_point_back),
    fault("what it answers is not HTTP, once", Asked.COLD_BLOB, lambda s: s.hub.garbage(_BLOB, times=1)),
    fault("what it answers is not HTTP", Asked.OLD_TAG, lambda s: s.hub.garbage("registry")),
    fault("a header of 1 MiB", Asked.NEW_TAG, _spoilt("manifest", spoilt.huge_header(1 << 20))),
    fault("a header of 1 MiB at the CDN", Asked.COLD_BLOB, _spoilt("cdn", spoilt.huge_header(1 << 20))),
    fault("100,000 header lines at the CDN", Asked.COLD_BLOB, _spoilt("cdn", spoilt.many_headers(100_000))),
    fault(
        "headers at ten bytes a second",
        Asked.OLD_TAG,
        _spoilt(_HEAD, spoilt.slow_headers(0.1), content_only=False),
        mend=_broken_and_well,
    ),
    fault("a redirect to itself, always", Asked.COLD_BLOB, lambda s: s.hub.redirect_loop("cdn")),
    fault("a redirect to where nobody listens", Asked.COLD_BLOB, _redirecting(_BLOB, _NOBODY)),
    fault("a redirect to no URL", Asked.COLD_BLOB, _redirecting(_BLOB, "http://[::1")),
    fault("a redirect to a file", Asked.COLD_BLOB, _redirecting(_BLOB, "file:///etc/passwd")),
    fault("a realm on somebody else's host", Asked.COLD_BLOB, _realm_elsewhere, mend=_realm_at_home),
)
