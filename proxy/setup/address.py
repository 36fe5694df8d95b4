"""The address under which a client reaches the cache: scheme, host and port, by a strict grammar and nothing else.

It is printed into files and, over HTTP, comes from the `Host` header of whoever asks: nothing passes that could be more
than an address in JSON, TOML, YAML or a shell.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, Self

from proxy.setup.errors import BadCacheUrl

_LABEL: Final = r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_AUTHORITY: Final = re.compile(
    rf"\A(?:(?P<name>{_LABEL}(?:\.{_LABEL})*)|\[(?P<ipv6>[0-9a-f:.]{{2,45}})\])(?::(?P<port>[0-9]{{1,5}}))?\Z"
)
_LONGEST_NAME: Final = 253
_LAST_PORT: Final = 65535
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class CacheUrl:
    """`http://cache:5000`. An IPv6 host is held with its brackets."""

    scheme: str
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Scheme, host and perhaps a port; one slash at the end is forgiven. Raises BadCacheUrl."""
        scheme, separator, authority = text.removesuffix("/").partition("://")
        if not separator:
            raise BadCacheUrl('expected the URL of the cache as "http://host:port" or "https://host:port"')
        return cls.of(scheme.lower(), authority)

    @classmethod
    def of(cls, scheme: str, authority: str) -> Self:
        """From `http` or `https` and host[:port]. Raises BadCacheUrl."""
        # Lower case makes ASCII of some letters that are none.
        match = _AUTHORITY.match(authority.lower()) if authority.isascii() else None
        if scheme not in _PORTS or match is None or len(authority) > _LONGEST_NAME + len(":65535"):
            raise BadCacheUrl("expected http or https, a host name or address, and perhaps a port; no path and no user")
        if match["ipv6"] is not None and not _is(IPv6Address, match["ipv6"]):
            raise BadCacheUrl("the IPv6 address of the cache is none")
        port = None if match["port"] is None else int(match["port"])
        if port is not None and not 0 < port <= _LAST_PORT:
            raise BadCacheUrl(f"expected a port from 1 to {_LAST_PORT}")
        return cls(scheme, match["name"] or f"[{match['ipv6']}]", port)

    @property
    def is_plain(self) -> bool:
        """Whether it is http, which some clients must be told to accept."""
        return self.scheme == "http"

    @property
    def is_loopback(self) -> bool:
        """Whether it means another machine on every machine."""
        if self.host == "localhost" or self.host.endswith(".localhost") or self.host == "[::1]":
            return True
        return _is(IPv4Address, self.host) and IPv4Address(self.host).is_loopback

    @property
    def registry(self) -> str:
        """As the first part of an image's name, where a word without dot and port would be taken for a user."""
        if self.port is not None:
            return f"{self.host}:{self.port}"
        is_host = "." in self.host or ":" in self.host or self.host == "localhost"
        return self.host if is_host else f"{self.host}:{_PORTS[self.scheme]}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" if self.port is None else f"{self.scheme}://{self.host}:{self.port}"


def cache_url(host_header: str | None, scheme: str) -> str:
    """The cache as the sender of this `Host` header reached it. Raises BadCacheUrl for all but host[:port]."""
    if host_header is None:
        raise BadCacheUrl("the request has no Host header, so the address of the cache cannot be told")
    return str(CacheUrl.of(scheme, host_header))


def _is(kind: type[IPv4Address] | type[IPv6Address], text: str) -> bool:
    try:
        kind(text)
    except AddressValueError:
        return False
    return True
