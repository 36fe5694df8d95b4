"""Whether two addresses are the same place."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import Final, Self

from yarl import URL

_ANY: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
_HERE: Final = frozenset({"this machine"})
_SCHEME: Final = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Place:
    """A host and port; `scheme` is as it was written, "" where none was."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """`http://cache:5000/docker.io`, or `cache:5000/docker.io` as Podman writes it; None if it is neither."""
        bare = not _SCHEME.match(text)
        try:
            url = URL(f"https://{text}" if bare else text)
            host, port = url.host, url.port
        except ValueError:
            return None
        if not host or port is None or url.scheme not in ("http", "https"):
            return None
        return cls("" if bare else url.scheme, host.lower(), port, url.path.strip("/"))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme or 'http'}://{host}:{self.port}"


def reachable_host(host: str) -> str:
    """The host to ask for what listens there; every interface is asked on the loopback one."""
    return _ANY.get(host, host)


def same_place(one: Place, other: Place) -> bool:
    """Whether both lead to the same listener. Blocks: names are resolved."""
    if one.port != other.port:
        return False
    return one.host == other.host or not addresses(one.host).isdisjoint(addresses(other.host))


def addresses(host: str) -> frozenset[str]:
    """What a host resolves to; all of this machine's own addresses are one. Empty for a name that is unknown."""
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(reachable_host(host), None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return frozenset()
    return _HERE if any(is_here(address) for address in found) else frozenset(found)


def is_here(address: str) -> bool:
    """Whether an IP address is one of this machine: only those can be bound to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.bind((address, 0))
    except OSError:
        return False
    return True
