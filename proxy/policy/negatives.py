"""Answers of upstream that said no, remembered briefly (PROTOCOL 8.11).

Clients repeat a refused request several times in a row; one question upstream is enough for all of them. Only what
upstream really answered is remembered - "unknown" and "denied" - never that it could not be asked.
"""

from __future__ import annotations

from collections.abc import Hashable
from copy import copy
from typing import Final

from proxy.lru import Lru
from proxy.oci.errors import (
    BlobUnknown,
    Denied,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    TooManyRequests,
    Unavailable,
)

NEGATIVE_SECONDS: Final = 30.0
_MAX_ENTRIES: Final = 10_000
_REMEMBERED: Final = (BlobUnknown, Denied, ManifestUnknown, NameUnknown)


class Negatives:
    """A bounded memory of refusals; times are on the monotonic clock."""

    def __init__(self) -> None:
        self._entries: Lru[Hashable, tuple[float, RegistryError]] = Lru(_MAX_ENTRIES)

    def remember(self, key: Hashable, error: RegistryError, now: float) -> None:
        """Keep the answer to `key`, if it is of a kind that is remembered."""
        if isinstance(error, _REMEMBERED):
            # A copy has no traceback, which would keep the frames of a whole request alive.
            self._entries.put(key, (now + NEGATIVE_SECONDS, copy(error)))

    def forget(self, key: Hashable) -> None:
        """Upstream has changed its mind."""
        self._entries.drop(key)

    def clear(self) -> None:
        """Forget all: what upstream is asked, and as whom, may be another from now on."""
        self._entries.clear()

    def instead_of(self, error: RegistryError, key: Hashable) -> RegistryError:
        """What to raise for `error`: if upstream could not be asked, the "unknown" that it last answered, however old.

        A signature that was not there is looked for at every pull: an outage must not break those.
        """
        last = self.last(key) if isinstance(error, Unavailable | TooManyRequests) else None
        return error if last is None else copy(last)

    def last(self, key: Hashable) -> RegistryError | None:
        """The "unknown" that upstream last answered to `key`, however old."""
        _, last = self._entries.get(key) or (0.0, None)
        return None if isinstance(last, Denied) else last

    def check(self, key: Hashable, now: float) -> None:
        """Raises the remembered error of `key`, if there is one."""
        until, error = self._entries.get(key) or (now, None)
        if error is not None and now < until:
            raise copy(error)
