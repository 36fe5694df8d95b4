"""The connections to one upstream, and to where it sends us: redirects and token realms (PROTOCOL 8.21).

A public registry may not send us into private networks, where we can reach what an outsider cannot. What counts is the
address that a connection is made to, so that no spelling of an address and no name that changes its mind slips through:
every socket of a connection to another host than the registry's own is made here, for the address at hand. A registry
that is itself at a private address may send us anywhere. Through a proxy nobody knows the address: there only addresses
that are written out are refused.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any, Final

import aiohttp
from yarl import URL

from proxy import __version__
from proxy.config import UpstreamOptions
from proxy.oci.errors import Unavailable
from proxy.upstream.failures import PrivateAddress
from proxy.upstream.proxies import Proxies, Proxy
from proxy.upstream.redirects import host_of, is_private_address, literal_address
from proxy.upstream.tls import tls_context

READ_BUFFER_BYTES: Final = 256 * 1024
"""What asyncio reads from a socket at once. With aiohttp's 64 KiB a fast body would be paused after every such read;
more would only be memory, twice of it for every running fill."""

_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": f"pullthrough/{__version__}"}

AddressInfo = tuple[Any, ...]
"""As `socket.getaddrinfo` has it: family, type, protocol, canonical name, address."""


class Connections:
    """Sessions for the registry's own host, for all others, and for what goes through a proxy."""

    def __init__(self, options: UpstreamOptions) -> None:
        self._options = options
        self._own_host = host_of(URL(options.url))
        self._own_is_private: bool | None = None
        self._proxies = Proxies({})
        self._own: aiohttp.ClientSession | None = None
        self._other: aiohttp.ClientSession | None = None
        self._proxied: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Ready to connect. Raises OSError for a file of certificates that cannot be used."""
        self._proxies = Proxies.configured(self._options.proxy)
        context = await asyncio.to_thread(tls_context, self._options)
        # No limit: slow blobs must not hold up the HEAD that could answer. `requests`, `transfers` and `max_fills` are.
        self._own = self._session(aiohttp.TCPConnector(limit=0, ssl=context, socket_factory=self._own_socket))
        self._other = self._session(aiohttp.TCPConnector(limit=0, ssl=context, socket_factory=self._other_socket))
        self._proxied = self._session(aiohttp.TCPConnector(limit=0, ssl=context))

    async def aclose(self) -> None:
        """Close every connection, those in use too."""
        for session in (self._own, self._other, self._proxied):
            if session is not None:
                await session.close()

    def to(self, url: URL) -> tuple[aiohttp.ClientSession, Proxy | None]:
        """What a request to this URL goes through. Raises Unavailable: for an address that is refused in writing, for
        a proxy that we cannot speak to, and before `start` and after `aclose`."""
        proxy = self._proxies.proxy_for(url)
        own = host_of(url) == self._own_host
        if proxy is not None and not own and self._is_public and _is_private_literal(host_of(url)):
            raise Unavailable(f"{self._options.name}: {PrivateAddress.words}")
        session = self._proxied if proxy is not None else self._own if own else self._other
        if session is None or session.closed:
            raise Unavailable(f"{self._options.name}: the connections are closed")
        return session, proxy

    @property
    def _is_public(self) -> bool:
        """By the address of the last connection; where a proxy makes those, by the host as it is written."""
        if self._own_is_private is None:
            return not _is_private_literal(self._own_host)
        return not self._own_is_private

    def _own_socket(self, info: AddressInfo) -> socket.socket:
        self._own_is_private = is_private_address(info[4][0])
        return socket.socket(*info[:3])

    def _other_socket(self, info: AddressInfo) -> socket.socket:
        if self._is_public and is_private_address(info[4][0]):
            raise PrivateAddress(errno.EACCES, PrivateAddress.words)
        return socket.socket(*info[:3])

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=None,
                sock_connect=self._options.connect_timeout,
                sock_read=self._options.idle_timeout,
            ),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
        )


def _is_private_literal(host: str) -> bool:
    address = literal_address(host)
    return address is not None and is_private_address(address)
