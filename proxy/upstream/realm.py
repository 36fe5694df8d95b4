"""Which token realms may be asked (PROTOCOL 2.1, 8.21).

A challenge names the realm, and credentials go there: so it must be the upstream's own host or one of the same
registrable domain (`registry-1.docker.io` and `auth.docker.io` share `docker.io`), over https unless the upstream is
http itself. That it is at no private address is seen to where connections are made: see `connections`.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from publicsuffixlist import PublicSuffixList
from yarl import URL

from proxy.oci.errors import Unavailable
from proxy.upstream.redirects import host_of

_NUMERIC: Final = re.compile(r"\A(?:0x[0-9a-f]*|[0-9]+)\Z")


def trusted_realm(realm: str, upstream: URL) -> URL:
    """The realm as a URL that credentials for this upstream may be sent to. Raises Unavailable."""
    try:
        url = URL(realm).with_fragment(None)
        host, port = host_of(url), url.port
    except ValueError:
        host, port = "", None
    if not host or port is None:
        raise Unavailable(f"{upstream.host}: the token realm is not a URL")
    reason = _refusal(url, host, upstream)
    if reason:
        raise Unavailable(f"{upstream.host}: the token realm on {host} is not trusted: {reason}")
    return url


def _refusal(url: URL, host: str, upstream: URL) -> str | None:
    if url.scheme not in ("https", upstream.scheme):
        return "it is not https"
    if url.user is not None or url.password is not None:
        return "it holds a user name"
    own = host_of(upstream)
    domain = _registrable_domain(own)
    if host != own and (domain is None or domain != _registrable_domain(host)):
        return f"it is not of the same domain as {own}"
    return None


def _registrable_domain(host: str) -> str | None:
    """`docker.io` of `auth.docker.io`; None for addresses, single labels and public suffixes."""
    if ":" in host or _NUMERIC.match(host.rpartition(".")[2]):
        return None
    return public_suffixes().privatesuffix(host)


@functools.cache
def public_suffixes() -> PublicSuffixList:
    """The list of public suffixes that comes with the library; reads a file the first time."""
    return PublicSuffixList()
