"""How careful to be with what is left of a quota, and with what.

              important           ordinary            unimportant
    plenty    -                   -                   -
    careful   -                   windows x2          windows x2, changed tags are answered with what we hold
    tight     -                   windows x6, likewise                     likewise, cold pulls wait
    reserve   -                   likewise, cold pulls wait                likewise
    exhausted changed tags are answered with what we hold, cold pulls wait, whatever it is; windows are as configured,
              since asking is free and tells as soon as something has come back

Cold pulls are of what we hold nothing for. A pull that has begun - its index was fetched a moment ago, and now a
manifest in it is asked for - is not stopped half-way while anything is left: that would waste what it has cost. The
reserve is kept for repositories that somebody called important; where nobody did there is none. An unknown quota is
plenty: paid accounts are sent no limit (PROTOCOL 1.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from fnmatch import fnmatchcase
from typing import Final

from proxy.oci.names import Repository
from proxy.policy.quota.purpose import Need

MAX_WINDOW_SECONDS: Final = 3600.0
"""A window is not stretched beyond this."""
HYSTERESIS: Final = 0.02
"""The share of the limit by which a level must be passed upwards to be left."""


class Level(IntEnum):
    """How much is left; the more serious, the greater."""

    PLENTY = 0
    CAREFUL = 1
    TIGHT = 2
    RESERVE = 3
    EXHAUSTED = 4

    @property
    def word(self) -> str:
        """For people."""
        return self.name.lower()


class Priority(Enum):
    """How much a repository matters to the operator."""

    IMPORTANT = "important"
    ORDINARY = "ordinary"
    UNIMPORTANT = "unimportant"


class Decision(Enum):
    """What to do about a counted pull."""

    PASS = "pass"
    SAVE = "save"
    """Answer with what we hold."""
    WAIT = "wait"
    """Wait a little for quota, and refuse if none comes."""


_STRETCH: Final = {Level.CAREFUL: 2.0, Level.TIGHT: 6.0, Level.RESERVE: 6.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the operator wants. `careful`, `tight` and `reserve` are shares of the limit, from 0 to 1.

    `important` and `unimportant` are patterns of names, with or without the registry: `library/*`, `ghcr.io/acme/*`;
    `wait` is for how many seconds a cold pull waits.
    """

    enabled: bool = True
    careful: float = 0.3
    tight: float = 0.1
    reserve: float = 0.05
    important: tuple[str, ...] = ()
    unimportant: tuple[str, ...] = ()
    wait: float = 10.0

    def level(self, limit: int | None, remaining: int | None, was: Level = Level.PLENTY) -> Level:
        """The level of so much, coming from another one; a refusal of upstream is EXHAUSTED, whatever this says."""
        if remaining == 0:
            return Level.EXHAUSTED
        if not self.enabled or not limit or remaining is None:
            return Level.PLENTY
        falling = self._level(remaining / limit)
        return falling if falling >= was else min(was, self._level(remaining / limit - HYSTERESIS))

    def priority(self, repository: Repository) -> Priority:
        """How much this repository matters."""
        if _matches(repository, self.important):
            return Priority.IMPORTANT
        return Priority.UNIMPORTANT if _matches(repository, self.unimportant) else Priority.ORDINARY

    def window(self, configured: float, level: Level, priority: Priority) -> float:
        """For how many seconds a tag is answered without asking."""
        if not self.enabled or priority is Priority.IMPORTANT:
            return configured
        return max(configured, min(MAX_WINDOW_SECONDS, configured * _STRETCH.get(level, 1.0)))

    def decide(self, level: Level, priority: Priority, need: Need) -> Decision:
        """What to do about a counted pull."""
        if not self.enabled or not self._holds_back(level, priority, need):
            return Decision.PASS
        return Decision.SAVE if need == "changed" else Decision.WAIT

    def _holds_back(self, level: Level, priority: Priority, need: Need) -> bool:
        if level is Level.EXHAUSTED:
            return True
        if need == "begun" or priority is Priority.IMPORTANT:
            return False
        earlier = priority is Priority.UNIMPORTANT
        if need == "changed":
            return level >= (Level.CAREFUL if earlier else Level.TIGHT)
        return level >= (Level.TIGHT if earlier else Level.RESERVE)

    def _level(self, share: float) -> Level:
        if share <= self.reserve and self.important:
            return Level.RESERVE
        if share <= self.tight:
            return Level.TIGHT
        return Level.CAREFUL if share <= self.careful else Level.PLENTY


def _matches(repository: Repository, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(repository.name, each) or fnmatchcase(str(repository), each) for each in patterns)
