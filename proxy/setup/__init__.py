"""How a client is told about the cache: what to put where, for every client and every upstream.

Text is made and merged here without I/O; `write` alone touches files. A client sees upstreams in one of three ways, all
of which the listener serves: the root (`cache:5000`, the first upstream), `?ns=` beside it (containerd and its
relatives, BuildKit), or the upstream's name as the first part of the path (`cache:5000/ghcr.io`).
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.setup.address import CacheUrl, cache_url
from proxy.setup.clients import CLIENTS, find_client
from proxy.setup.errors import BadCacheUrl, NotWritten, Refused, SetupError, UnknownClient
from proxy.setup.guide import Cache, Part, Setup, Way
from proxy.setup.text import as_text, clients_text

__all__ = [
    "CLIENTS",
    "BadCacheUrl",
    "Cache",
    "CacheUrl",
    "NotWritten",
    "Part",
    "Refused",
    "Setup",
    "SetupError",
    "UnknownClient",
    "Way",
    "as_text",
    "cache_url",
    "clients_text",
    "make_setup",
    "setup_text",
]


def make_setup(client: str, url: str, upstreams: Sequence[str]) -> Setup:
    """What this client needs to reach these upstreams, the first being the default one, through the cache at `url`.

    Raises UnknownClient, BadCacheUrl.
    """
    found = find_client(client)
    return found.make(Cache(CacheUrl.parse(url), tuple(upstreams)))


def setup_text(client: str, url: str, upstreams: Sequence[str]) -> str:
    """The same as lines for a terminal. Raises UnknownClient, BadCacheUrl."""
    return as_text(make_setup(client, url, upstreams))
