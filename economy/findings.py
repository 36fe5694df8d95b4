"""What clients saw on that day, and what upstream counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from economy.workload import Job


@dataclass(slots=True)
class Outcome:
    """How a job went. Times are of the day."""

    job: Job
    began: float
    ended: float = 0.0
    failed: str | None = None
    """Why, in a line."""
    outdated: int = 0
    """Tags that were answered with what they do not point to any more."""
    marked: int = 0
    """Answers that said of themselves that they are stale."""
    missed: str = ""
    """The repository of the last image that it wanted: the one that a failed job did not get."""
    direct: bool = False
    """Whether the client went around its mirror."""


@dataclass(slots=True)
class Sample:
    """What could be seen at a moment of the day."""

    at: float
    remaining: int
    counted: int
    running: int


@dataclass(slots=True)
class Findings:
    """Of one day with one rival."""

    rival: str
    limit: int
    outcomes: list[Outcome] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    """Of all answers that clients got."""
    asked: set[tuple[str, str]] = field(default_factory=set)
    """The different manifests that clients asked for: repository and digest."""
    wrong: list[str] = field(default_factory=list)
    """Bytes that were not those of their digest."""
    counted: int = 0
    """Pulls that upstream counted."""
    bytes_upstream: int = 0
    """Bodies that upstream sent, to the cache and to clients that went around it."""
    bytes_clients: int = 0
    """Bodies that clients got."""
    decisions: dict[str, int] = field(default_factory=dict)
    """Of our governor, and how often."""

    @property
    def failed(self) -> list[Outcome]:
        return [each for each in self.outcomes if each.failed is not None]

    @property
    def outdated(self) -> int:
        """Answers to tags with what they do not point to any more."""
        return sum(each.outdated for each in self.outcomes)

    @property
    def limited(self) -> int:
        """429s that clients got."""
        return self.statuses[429]

    def failed_of(self, prefix: str) -> list[Outcome]:
        """Failed jobs that did not get something of these repositories."""
        return [each for each in self.failed if each.missed.startswith(prefix)]
