"""How a request was answered, in the words of RFC 9211 (Cache-Status) and RFC 9111."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Self

from proxy.oci.errors import Denied, RegistryError, TooManyRequests, Unavailable
from proxy.pull.patience import Slow

Reason = Literal["slow", "limited", "denied", "unavailable", "missing", "quota-saved"]

_WARNINGS: Final[dict[Reason, str]] = {
    "slow": "served stale: the upstream registry is slow to answer",
    "limited": "served stale: the upstream registry's rate limit is reached",
    "denied": "served stale: the upstream registry refuses access",
    "unavailable": "served stale: the upstream registry cannot be reached",
    "missing": "served stale: the upstream registry no longer has this",
    "quota-saved": "served stale: this has changed, and little is left of the pull quota of the upstream registry",
}


def reason_for(error: RegistryError) -> Reason:
    """Why upstream could not confirm what we hold."""
    if isinstance(error, TooManyRequests):
        return "limited"
    if isinstance(error, Denied):
        return "denied"
    if isinstance(error, Slow):
        return "slow"
    return "unavailable" if isinstance(error, Unavailable) else "missing"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer's way. `age` in seconds since upstream confirmed it; `counted` is what it cost of the pull quota.

    `fallback` names who said where the tag points, if it was not the upstream itself; `unstored` is why a blob was
    passed through without being stored.
    """

    kind: Literal["hit", "miss", "stale"]
    collapsed: bool = False
    stored: bool = False
    revalidated: bool = False
    age: int | None = None
    stale_because: Reason | None = None
    counted: int = 0
    fallback: str | None = None
    unstored: str | None = None
    stretched: bool = False
    """Answered without asking, though that is longer ago than configured: little is left of the quota."""
    waited: bool = False
    """Fetched after a wait for quota."""
    until: float | None = None
    """By the wall clock, when the same question may get another answer although nothing has changed; None: never."""

    @classmethod
    def stale(cls, reason: Reason, age: int) -> Self:
        """An answer that upstream did not confirm."""
        return cls("stale", age=age, stale_because=reason)

    @property
    def label(self) -> str:
        """For metrics: hit, miss, stale or collapsed."""
        return "collapsed" if self.collapsed else self.kind

    @property
    def is_plain_hit(self) -> bool:
        """Whether it came from the cache and nothing else is to be said of it."""
        return self.cache_status == "pullthrough; hit"

    @property
    def cache_status(self) -> str:
        """The value of Cache-Status."""
        parts = ["pullthrough", "hit" if self.kind == "hit" else f"fwd={self.kind}"]
        if self.stored:
            parts.append("stored")
        if self.collapsed:
            parts.append("collapsed")
        detail = self.stale_because or self.unstored
        detail = detail or ("fallback" if self.fallback else "revalidated" if self.revalidated else None)
        detail = "quota-waited" if self.waited else "quota-stretched" if self.stretched else detail
        if detail:
            parts.append(f"detail={detail}")
        return "; ".join(parts)

    @property
    def warning(self) -> str | None:
        """The value of Warning for what the upstream itself did not say now (OCI distribution spec: 299, no date)."""
        if self.stale_because:
            return f'299 - "{_WARNINGS[self.stale_because]}"'
        if self.fallback:
            return f'299 - "the upstream registry cannot be asked: {self.fallback} answered in its stead"'
        return None
