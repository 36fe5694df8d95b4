"""The pull limit: every manifest GET costs one pull of whoever asked.

Without a clock nothing comes back but by `set_remaining`; with one (`Settings.rolls`) the window rolls.
"""

import uuid
from collections import Counter, defaultdict, deque

from .settings import ANONYMOUS, Settings


class Quota:
    """How many pulls each identity has left."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._spent: Counter[str] = Counter()
        self._spent_before = 0  # by an identity not seen yet
        self._moments: defaultdict[str, deque[float]] = defaultdict(deque)  # of pulls that will come back
        self.counted: Counter[str] = Counter()

    def remaining(self, identity: str) -> int | None:
        """Return the pulls left, or None without a limit."""
        if self._settings.rate_limit is None:
            return None
        self._roll(identity)
        return max(0, self._settings.rate_limit[0] - self._spent.get(identity, self._spent_before))

    def set_remaining(self, remaining: int, identity: str | None = None) -> None:
        """Leave an identity (or everybody) this many pulls."""
        if self._settings.rate_limit is None:
            raise ValueError("there is no limit to count from")
        spent = self._settings.rate_limit[0] - remaining
        if identity is None:
            self._spent.clear()
            self._moments.clear()
            self._spent_before = spent
        else:
            self._spent[identity] = spent
            self._moments.pop(identity, None)

    def spend(self, identity: str) -> None:
        """Count one pull."""
        self.counted[identity] += 1
        self._spent[identity] = self._spent.get(identity, self._spent_before) + 1
        if self._settings.rolls is not None:
            self._moments[identity].append(self._settings.rolls())

    def headers(self, identity: str) -> dict[str, str]:
        """Return what Docker Hub tells with every manifest."""
        headers = {"docker-ratelimit-source": source_of(identity)}
        if self._settings.rate_limit is not None:
            limit, window = self._settings.rate_limit
            headers["ratelimit-limit"] = f"{limit};w={window}"
            headers["ratelimit-remaining"] = f"{self.remaining(identity)};w={window}"
        return headers

    def _roll(self, identity: str) -> None:
        """Give back what is older than the window."""
        if self._settings.rolls is None or self._settings.rate_limit is None:
            return
        moments, begin = self._moments[identity], self._settings.rolls() - self._settings.rate_limit[1]
        while moments and moments[0] <= begin:
            moments.popleft()
            self._spent[identity] -= 1


def source_of(identity: str) -> str:
    """Return whose quota it is: an address for the anonymous, a UUID for an account."""
    return "127.0.0.1" if identity == ANONYMOUS else str(uuid.uuid5(uuid.NAMESPACE_DNS, identity))
