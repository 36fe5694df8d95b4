"""Who is at the other end of a connection."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


def is_local(peer: object, own: object) -> bool:
    """Whether that is this machine: it has a loopback address, or the one that it has reached us at.

    Both are as sockets name them; a Unix socket, which a service manager may pass, has a path or none.
    """
    if not isinstance(peer, tuple) or not isinstance(own, tuple):
        return isinstance(own, str)
    address = ip_address(str(peer[0]).partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback or peer[0] == own[0]
