"""The HTTP proxies: an upstream's own or the environment's HTTPS_PROXY, HTTP_PROXY and NO_PROXY (PROTOCOL 8.22).

Read here rather than by aiohttp's `trust_env`, which would also read ~/.netrc and send what it finds there.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from yarl import URL

from proxy.oci.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy's address, and the headers that log in to it. Neither repr nor str tells the password."""

    url: URL
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """Raises Unavailable for a proxy that we cannot speak to."""
        try:
            url = URL(text if "://" in text else f"http://{text}")
            origin = url.origin()
        except ValueError:
            raise Unavailable("the proxy named in the environment is not a URL") from None
        if url.scheme not in ("http", "https"):
            raise Unavailable(f"the proxy named in the environment is {url.scheme}, expected http or https")
        if url.user is None:
            return cls(origin, {})
        login = base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
        return cls(origin, {"Proxy-Authorization": f"Basic {login}"})


class Proxies:
    """Which proxy a URL is asked through."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)

    @classmethod
    def configured(cls, proxy: str | None) -> Proxies:
        """The proxy of the configuration, "direct" for none; without either those this process was started with."""
        if proxy is None:
            return cls(getproxies_environment())
        return cls({} if proxy == "direct" else {"http": proxy, "https": proxy})

    def proxy_for(self, url: URL) -> Proxy | None:
        """None to connect directly. Raises Unavailable for a proxy that we cannot speak to."""
        text = self._environment.get(url.scheme)
        if not text or _is_loopback(url.host or ""):
            return None
        if proxy_bypass_environment(url.authority, self._environment):
            return None
        return Proxy.parse(text)


def _is_loopback(host: str) -> bool:
    """This machine is never asked through a proxy; the clients of a registry keep the same rule."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
