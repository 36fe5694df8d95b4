"""What is looked at for alerts, at one moment, and what one of them says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["critical", "warning", "info"]
Labels = tuple[tuple[str, str], ...]
"""What tells one alert from others of its name: `(("upstream", "docker.io"),)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamFacts:
    """One upstream. What is not known is None.

    Counted since the start are the answers that its request limit is reached (`limited`), and the tags that we hold and
    it has no more (`vanished`).
    """

    name: str
    account: str = "anonymous"
    limit: int | None = None
    remaining: int | None = None
    exhausted_seconds: float | None = None
    """Until its quota is used up at the present rate."""
    bypass_suspected: bool = False
    credentials_rejected: bool = False
    breaker_open: bool = False
    limited: int = 0
    vanished: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The whole cache. Counts are since the start: by kind of request, and of bad content by how it was found."""

    upstreams: tuple[UpstreamFacts, ...] = ()
    requests: Mapping[str, int] = field(default_factory=dict)
    hits: Mapping[str, int] = field(default_factory=dict)
    misses: Mapping[str, int] = field(default_factory=dict)
    integrity_failures: Mapping[str, int] = field(default_factory=dict)
    not_stored: int = 0
    """Blobs that were passed through for want of room."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What somebody is told. Times are seconds since the epoch; `ended_at` is None while it stands."""

    name: str
    severity: Severity
    labels: Labels
    summary: str
    description: str
    """What to do."""
    started_at: float
    ended_at: float | None = None

    @property
    def key(self) -> tuple[str, Labels]:
        """Alerts with the same one are the same."""
        return self.name, self.labels
