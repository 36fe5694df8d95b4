"""Docker Hub's pull quota, told in headers on every manifest response and spent by GETs of manifests only."""

from collections import Counter
from dataclasses import dataclass, field

ANONYMOUS = ""
ACCOUNT_ID = "a645ce4d-4328-42eb-8241-1624241605ef"  # Hub names a logged-in account by its UUID


@dataclass(slots=True)
class Quota:
    """How many counted pulls each identity has in a window, and how many it has spent."""

    window_s: int = 21_600
    limit: int = 10_000
    left_to_all: int = 10_000
    spent: Counter[str] = field(default_factory=Counter)

    def remaining(self, identity: str) -> int:
        return max(0, self.left_to_all - self.spent[identity])

    def set_remaining(self, remaining: int) -> None:
        """Leave this many pulls to every identity."""
        self.left_to_all = remaining
        self.spent.clear()

    def reset(self) -> None:
        self.set_remaining(self.limit)

    def headers(self, identity: str) -> dict[str, str]:
        return {
            "ratelimit-limit": f"{self.limit};w={self.window_s}",
            "ratelimit-remaining": f"{self.remaining(identity)};w={self.window_s}",
            "docker-ratelimit-source": ACCOUNT_ID if identity else "127.0.0.1",
        }
