"""Asking the admin listener of a running process, with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from proxy.config import Address

_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
_TIMEOUT_SECONDS: Final = 60.0
"""For questions that are read from disk, and for one step of a purge."""
_PAGE: Final = 1000

Document = dict[str, Any]


class AdminUnreachable(Exception):
    """Nothing useful answered. The message says where, and what may be the matter."""


class AdminRefused(Exception):
    """The process said no. The message says why; `status` is that of HTTP."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def get(listen: Address, path: str, timeout: float) -> tuple[int, bytes]:
    """Status and body of a GET at the configured admin address. Raises AdminUnreachable."""
    return _request(listen, "GET", path, None, timeout)


class Admin:
    """The API of the running process."""

    def __init__(self, listen: Address) -> None:
        self._listen = listen

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str | int] | None = None,
    ) -> Document:
        """The document that it answers; the path is what follows /api/. Raises AdminUnreachable and AdminRefused."""
        target = f"/api/{quote(path, safe='/:@')}" + (f"?{urlencode(query)}" if query else "")
        status, answer = _request(self._listen, method, target, body, _TIMEOUT_SECONDS)
        try:
            document = json.loads(answer)
            if status < 400 and isinstance(document, dict):
                return document
            message = document["error"]
        except (ValueError, KeyError, TypeError):
            raise AdminUnreachable(
                f"{self._listen} answered {status}, but not as pullthrough does: is it another program, or older?"
            ) from None
        raise AdminRefused(str(message), status)

    def pages(self, path: str, query: Mapping[str, str | int] | None = None) -> Iterator[Document]:
        """All pages of a list. Raises AdminUnreachable and AdminRefused."""
        after = ""
        while True:
            page = self.ask("GET", path, query={**(query or {}), "limit": _PAGE, "after": after})
            yield page
            if page.get("next") is None:
                return
            after = page["next"]


def _request(
    listen: Address, method: str, path: str, body: Mapping[str, object] | None, timeout: float
) -> tuple[int, bytes]:
    address = Address(_LOOPBACK.get(listen.host, listen.host), listen.port)
    if address.port == 0:
        raise AdminUnreachable("admin.listen has port 0, so the port cannot be known; give it a fixed one")
    connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout)
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.read()
    except ConnectionRefusedError as cause:
        raise AdminUnreachable(
            f"nothing listens on {address}; is `pullthrough serve` running, with the same configuration?"
        ) from cause
    except TimeoutError as cause:
        raise AdminUnreachable(f"{address} did not answer within {timeout:g} s") from cause
    except (OSError, http.client.HTTPException) as cause:
        raise AdminUnreachable(f"cannot ask {address}: {str(cause) or type(cause).__name__}") from cause
    finally:
        connection.close()
