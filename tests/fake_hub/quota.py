"""The pull limit: every manifest GET costs one pull of whoever asked."""

import uuid
from collections import Counter

from .settings import ANONYMOUS, Settings


class Quota:
    """How many pulls each identity has left."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._spent: Counter[str] = Counter()
        self._spent_before = 0  # by an identity not seen yet
        self.counted: Counter[str] = Counter()

    def remaining(self, identity: str) -> int | None:
        """Return the pulls left, or None without a limit."""
        if self._settings.rate_limit is None:
            return None
        return max(0, self._settings.rate_limit[0] - self._spent.get(identity, self._spent_before))

    def set_remaining(self, remaining: int, identity: str | None = None) -> None:
        """Leave an identity (or everybody) this many pulls."""
        if self._settings.rate_limit is None:
            raise ValueError("there is no limit to count from")
        spent = self._settings.rate_limit[0] - remaining
        if identity is None:
            self._spent.clear()
            self._spent_before = spent
        else:
            self._spent[identity] = spent

    def spend(self, identity: str) -> None:
        """Count one pull."""
        self.counted[identity] += 1
        self._spent[identity] = self._spent.get(identity, self._spent_before) + 1

    def headers(self, identity: str) -> dict[str, str]:
        """Return what Docker Hub tells with every manifest."""
        headers = {"docker-ratelimit-source": source_of(identity)}
        if self._settings.rate_limit is not None:
            limit, window = self._settings.rate_limit
            headers["ratelimit-limit"] = f"{limit};w={window}"
            headers["ratelimit-remaining"] = f"{self.remaining(identity)};w={window}"
        return headers


def source_of(identity: str) -> str:
    """Return whose quota it is: an address for the anonymous, a UUID for an account."""
    return "127.0.0.1" if identity == ANONYMOUS else str(uuid.uuid5(uuid.NAMESPACE_DNS, identity))
