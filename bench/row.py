"""A row of the table, and the work that gives its figures."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.goal import Goal
from bench.rivals import Rival
from bench.stand import Stand

Figures = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity of the table."""

    title: str
    unit: str
    more_is_better: bool = False
    goals: tuple[Goal, ...] = ()
    guard: float | None = None  # the most of nginx's figure that CI lets pass: about twice what it was when written


@dataclass(frozen=True, slots=True)
class Work:
    """One thing done to each rival in turn; `run` returns one figure for each row."""

    name: str
    rows: tuple[Row, ...]
    run: Callable[[Stand, Rival], Figures]
    once: bool = False  # in the first round only, because it takes long
