"""The figures as a picture: how far each goal is reached."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.goal import Goal, State
from bench.line import Line, number
from bench.rivals import NGINX

REACHED: Final = "#1a7f5a"
MISSED: Final = "#c2571a"
INK: Final = "#333333"
AIM: Final = "#8d99a6"
DPI: Final = 100

Mark = tuple[Line, Goal]


def draw_ratios(lines: Sequence[Line], file: Path) -> None:
    """Draw a PNG: on the left what is compared with nginx, on the right what has a bound of its own.

    Every bar is turned so that further right is better, and none is drawn for what was not measured.
    """
    marks = [(line, goal) for line in lines for goal in line.row.goals if line.judged(goal)]
    panels = (
        (
            "against nginx: 1 is as good, further right is better",
            [each for each in marks if each[1].against == NGINX.name],
        ),
        (
            "what is allowed / what it is: 1 and more is kept",
            [each for each in marks if each[1].against is None],
        ),
    )
    rows = max(1, *(len(marks) for _, marks in panels))
    figure, axes = _figure((14.0, 1.2 + 0.42 * rows))
    for axis, (title, chosen) in zip(axes, panels, strict=True):
        axis.set_title(title, fontsize=10, color=INK, loc="left")
        _bars(axis, chosen)
    figure.savefig(file, dpi=DPI, metadata={"Software": None})


def goodness(figure: float, goal: Goal, *, more_is_better: bool) -> float:
    """Turn a figure so that more is better: a ratio or its inverse, or how many times it fits into its bound."""
    if goal.against is not None:
        return figure if more_is_better else 1 / figure
    return figure / goal.must if more_is_better else goal.must / figure


def _bars(axis: Any, marks: Sequence[Mark]) -> None:
    axis.set_ylim(len(marks) - 0.4, -0.6)
    axis.set_yticks(range(len(marks)), [line.row.title for line, _ in marks])
    axis.axvline(1, color=INK, linewidth=0.8)
    top = 1.0
    for at, mark in enumerate(marks):
        top = max(top, _bar(axis, at, mark))
    axis.set_xlim(0, top * 1.22)
    axis.tick_params(labelsize=9, colors=INK)


def _bar(axis: Any, at: int, mark: Mark) -> float:
    """Draw one bar, its spread and its two marks; return how far to the right that reaches."""
    line, goal = mark
    better = line.row.more_is_better
    figures = [goodness(each, goal, more_is_better=better) for each in line.judged(goal)]
    must, aim = (goodness(each, goal, more_is_better=better) for each in (goal.must, goal.aim))
    middle, low, high = median(figures), min(figures), max(figures)
    axis.barh(at, middle, height=0.6, color=MISSED if line.state(goal) is State.MISSED else REACHED)
    axis.plot([low, high], [at, at], color=INK, linewidth=1.0)
    axis.plot([must, must], [at - 0.42, at + 0.42], color=INK, linewidth=2.0)
    axis.plot([aim, aim], [at - 0.42, at + 0.42], color=AIM, linewidth=2.0, linestyle=":")
    end = max(high, must, aim)
    axis.annotate(
        _value(line, goal), (end, at), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9, color=INK
    )
    return end


def _value(line: Line, goal: Goal) -> str:
    """Return the figure as the table has it, which for a ratio may be the other way round than the bar."""
    figure = number(median(line.judged(goal)))
    if goal.against is None:
        return f"{figure} {line.row.unit}"
    return figure if line.row.more_is_better else f"{figure} of {goal.against}'s"


def _figure(size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure of two panels that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    marks = [Line2D([], [], color=INK, linewidth=2.0), Line2D([], [], color=AIM, linewidth=2.0, linestyle=":")]
    figure.legend(marks, ["must", "aim"], loc="outside lower right", ncols=2, fontsize=9, frameon=False)
    return figure, axes
