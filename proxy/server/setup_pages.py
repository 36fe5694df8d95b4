"""`/setup/<client>`: what to put where, asked with curl from the very machine that needs it."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from multidict import CIMultiDict

from proxy.setup import BadCacheUrl, UnknownClient, cache_url, clients_text, setup_text


def setup_page(
    client: str, host_header: str | None, scheme: str, registries: Sequence[str], headers: CIMultiDict[str]
) -> web.Response:
    """Plain text for a terminal; without a client the list of them. The cache is called what the client called it."""
    try:
        url = cache_url(host_header, scheme)
        status, text = 200, setup_text(client, url, registries) if client else clients_text()
    except UnknownClient as error:
        status, text = 404, f"{error}\n"
    except BadCacheUrl as error:
        status, text = 400, f"{error}\n"
    headers["Content-Type"] = "text/plain; charset=utf-8"
    headers["X-Content-Type-Options"] = "nosniff"
    return web.Response(status=status, body=text.encode(), headers=headers)
