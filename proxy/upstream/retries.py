"""Which requests are sent once more: those that cost nothing and failed in a way that may pass in a moment.

Once, and only where it can help within the patience of who waits: a time-out has used that up already, a name that does
not resolve and a certificate that was refused stay so. Bodies of blobs are left to the fill, which has attempts and
pauses of its own. GET of a manifest is a counted pull on Docker Hub: it is repeated only if not even headers came,
never after an answer, which may have been counted.
"""

from __future__ import annotations

import errno
import random
from typing import Final

import aiohttp

PAUSE_SECONDS: Final = 0.2
_PASSING_STATUS: Final = frozenset({500, 502, 503, 504})
_PASSING_ERRNO: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE})


def pause() -> float:
    """Seconds to wait before it: jittered, so that what failed together does not come back together."""
    return PAUSE_SECONDS * random.uniform(0.5, 1.5)


def is_passing_failure(kind: str, method: str, error: BaseException) -> bool:
    """Whether a request that got no answer is sent once more."""
    if (kind, method) == ("blob", "GET"):
        return False
    broken = isinstance(error, aiohttp.ServerDisconnectedError)
    return broken or (isinstance(error, OSError) and error.errno in _PASSING_ERRNO)


def is_passing_answer(kind: str, method: str, response: aiohttp.ClientResponse) -> bool:
    """Whether a request with this answer is sent once more; not before the time that the answer names."""
    if method != "HEAD" and kind in ("blob", "manifest"):
        return False
    return response.status in _PASSING_STATUS and "Retry-After" not in response.headers
