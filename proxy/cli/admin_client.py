"""Asking the admin listener of a running process, with nothing but the standard library."""

from __future__ import annotations

import http.client

from proxy.config import Address

_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


class AdminUnreachable(Exception):
    """Nothing useful answered. The message says where, and what may be the matter."""


def get(listen: Address, path: str, timeout: float) -> tuple[int, bytes]:
    """Status and body of a GET at the configured admin address. Raises AdminUnreachable."""
    address = Address(_LOOPBACK.get(listen.host, listen.host), listen.port)
    if address.port == 0:
        raise AdminUnreachable("admin.listen has port 0, so the port cannot be known; give it a fixed one")
    connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout)
    try:
        connection.request("GET", path)
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
