"""Where a redirect may lead (PROTOCOL 3, 8.9, 8.21): pure, so that every rule stands in a table of the tests."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final

from yarl import URL

from proxy.oci.errors import Unavailable

MAX_REDIRECTS: Final = 5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_PRINTABLE: Final = re.compile(r"\A[\x21-\x7e]+\Z")
_HOLDS_IPV4: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""NAT64 (RFC 6052), and the IPv4-compatible addresses that nobody should use any more."""


def origin(url: URL) -> tuple[str, str | None, int | None]:
    """Scheme, host and port (RFC 6454), with the port that the scheme implies."""
    return url.scheme, url.raw_host, url.port


def redirect_target(upstream: str, url: URL, location: str | None) -> URL:
    """The URL that a Location seen at `url` names, exactly as written: a signature in it survives no other quoting.

    From https it leads to https only. Raises Unavailable, without a word of the Location.
    """
    try:
        target = url.join(URL(location or "", encoded=True)) if _PRINTABLE.match(location or "") else URL()
        usable = target.scheme in ("http", "https") and bool(target.raw_host) and target.port and target.user is None
    except ValueError:
        usable = False
    if not usable:
        raise Unavailable(f"{upstream}: a redirect to nowhere")
    if url.scheme == "https" and target.scheme != "https":
        raise Unavailable(f"{upstream}: a redirect from https to http")
    return target


def host_of(url: URL) -> str:
    """The host, in the one spelling that hosts are compared in."""
    return (url.raw_host or "").lower().rstrip(".")


def literal_address(host: str) -> str | None:
    """The address that a host spells out; None for a name.

    Also as systems read it besides the usual form (inet_aton(3)): `0x7f.1`, `2130706433`, `0177.0.0.1`.
    """
    host = host.strip("[]").rstrip(".")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host)) if re.fullmatch(r"[0-9a-fx.]+", host, re.IGNORECASE) else None
    except OSError:
        return None


def is_private_address(address: str) -> bool:
    """Whether this address is not of the public internet (RFC 6890): private, loopback, link-local with the metadata
    services of clouds, shared by a carrier, reserved. An IPv6 address that holds an IPv4 one is as private as that."""
    parsed = ipaddress.ip_address(address)
    meant = _held(parsed) if isinstance(parsed, ipaddress.IPv6Address) else parsed
    return not meant.is_global or meant.is_multicast


def _held(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if any(address in network for network in _HOLDS_IPV4):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
