"""Sizes, ages, digests and columns, as people read them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Final

from proxy.units import format_duration

SHORT_DIGEST: Final = len("sha256:") + 12

_BAR_CELLS: Final = 20
_GAP: Final = "  "
_LEAST_CELLS: Final = 12
"""A column is not made narrower than this."""


def duration(seconds: float) -> str:
    """Whole seconds; of long times the two greatest units are enough."""
    return _units(seconds, 2)


def ago(moment: float | None, now: float) -> str:
    """How long ago, in one unit."""
    if moment is None:
        return "never"
    return "just now" if now - moment < 1 else f"{_units(now - moment, 1)} ago"


def at(moment: float, now: float) -> str:
    """When, and how long ago."""
    return f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(moment))} UTC ({ago(moment, now)})"


def count(number: int, noun: str) -> str:
    """`1 blob`, `2 blobs`, `2 repositories`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def short(digest: str) -> str:
    """Enough of a digest to tell it from others."""
    return printable(digest)[:SHORT_DIGEST]


def bar(share: float) -> str:
    """Progress, from 0 to 1."""
    full = min(_BAR_CELLS, int(share * _BAR_CELLS))
    return f"[{'#' * full}{'.' * (_BAR_CELLS - full)}]"


def printable(text: object) -> str:
    """Without control characters, which could move a terminal's cursor."""
    return "".join(character if character.isprintable() else "?" for character in str(text))


class Columns:
    """Rows in columns that stay where they are from one call of `lines` to the next, as far as they fit.

    `right` are the columns of numbers, `wide` is the one that is cut where the terminal has only `width` cells.
    """

    def __init__(self, titles: Sequence[str], *, right: Collection[int] = (), wide: int = 0, width: int = 0) -> None:
        self._titles = titles
        self._right = right
        self._wide = wide
        self._width = width
        self._cells = [len(title) for title in titles]
        self._headed = False

    def lines(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """The rows, below the titles when these were not shown yet."""
        for row in rows:
            self._cells = [max(cells, len(text)) for cells, text in zip(self._cells, row, strict=True)]
        shown = list(rows) if self._headed else [self._titles, *rows]
        self._headed = True
        cells = self._fitting()
        return [self._line(row, cells) for row in shown]

    def _fitting(self) -> list[int]:
        cells = list(self._cells)
        excess = sum(cells) + len(_GAP) * (len(cells) - 1) - self._width
        if self._width and excess > 0:
            cells[self._wide] = max(_LEAST_CELLS, cells[self._wide] - excess)
        return cells

    def _line(self, row: Sequence[str], cells: Sequence[int]) -> str:
        parts = []
        for number, (text, size) in enumerate(zip(row, cells, strict=True)):
            cut = text if len(text) <= size else f"{text[: size - 3]}..."
            parts.append(cut.rjust(size) if number in self._right else cut.ljust(size))
        return _GAP.join(parts).rstrip()


def _units(seconds: float, most: int) -> str:
    """At most so many units, the greatest ones. A clock that was set back makes no negative ages."""
    text = format_duration(max(0, round(seconds)))
    ends = [position + 1 for position, character in enumerate(text) if character.isalpha()]
    return text[: ends[most - 1]] if len(ends) > most else text
