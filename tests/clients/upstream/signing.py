"""Signed URLs of the CDN, as Cloudflare's for Docker Hub: `?verify=<expiry>-<base64 of an HMAC>`."""

import base64
import hashlib
import hmac
import secrets
import time
from urllib.parse import quote, unquote

VALID_S = 3000
# Leading bytes whose base64 is `/+++`: every signature holds the two characters that careless clients re-quote.
_MARK = b"\xff\xef\xbe"


class Signer:
    """Signs paths for a while; the query counts byte for byte, so a client that re-quotes it has lost."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def query(self, path: str) -> str:
        """Return the query of a signed URL for a path."""
        return self._query(path, int(time.time()) + VALID_S)

    def accepts(self, path: str, raw_query: str) -> bool:
        """Is this the very query that was signed, and not yet expired?"""
        expiry = _expiry(raw_query)
        return expiry > time.time() and hmac.compare_digest(raw_query, self._query(path, expiry))

    def is_requoted(self, path: str, raw_query: str) -> bool:
        """Is this a signed query whose percent-encoding the client has changed?"""
        return not self.accepts(path, raw_query) and unquote(raw_query) == unquote(
            self._query(path, _expiry(raw_query))
        )

    def _query(self, path: str, expiry: int) -> str:
        mac = hmac.digest(self._secret, f"{path}?{expiry}".encode(), hashlib.sha256)
        return f"verify={expiry}-{quote(base64.b64encode(_MARK + mac), safe='')}"


def _expiry(raw_query: str) -> int:
    digits = raw_query.removeprefix("verify=").partition("-")[0]
    return int(digits) if digits.isdecimal() else 0
