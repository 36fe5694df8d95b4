"""A fault, and what was seen of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.faults.stand import Stand


@dataclass(frozen=True)
class Seen:
    """A row of the table, in words."""

    client: str
    disk: str
    metrics: str
    then: str


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and the run that shows it: it checks what holds for all faults, and returns what was seen.

    `within`: seconds after which a client counts as hung, on the tests' settings.
    """

    title: str
    asked: str
    within: float
    run: Callable[[Stand], Awaitable[Seen]]

    def __str__(self) -> str:
        return f"{self.title}: {self.asked}"
