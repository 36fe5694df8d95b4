"""What a check found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How it stands."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not applicable here, or not reached after something else failed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for people; beneath what failed, what to do next."""

    state: State
    text: str
    cure: str | None = None


def ok(text: str) -> Finding:
    """It is as it should be."""
    return Finding(State.OK, text)


def failed(text: str, cure: str) -> Finding:
    """It is not, and this is what to do."""
    return Finding(State.FAILED, text, cure)


def skipped(text: str) -> Finding:
    """There is nothing to judge, and why."""
    return Finding(State.SKIPPED, text)


NOT_REACHED = skipped("not reached: see above")


@dataclass(frozen=True, slots=True)
class Check:
    """One step: its name, and how to take it. `seconds` is how long it may last."""

    name: str
    run: Callable[[], Awaitable[Finding]]
    seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Result:
    """A check that was made."""

    name: str
    finding: Finding
