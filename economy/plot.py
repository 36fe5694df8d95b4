"""The figures as pictures."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from economy.findings import Findings, Outcome
from economy.pace import HOUR
from economy.table import MB, most_in_window
from economy.workload import Day

OURS: Final = "#1a7f5a"
OTHERS: Final = "#8d99a6"
WITHOUT: Final = "#c2571a"
INK: Final = "#333333"
OUTAGE: Final = "#e6e6e6"
DPI: Final = 100


def draw_economy(day: Day, found: Sequence[Findings], file: Path) -> None:
    """Bars: what the day costs with each rival, the physical limit, and what failed."""
    panels: list[tuple[str, Callable[[Findings], float], list[tuple[float, str]]]] = [
        ("counted pulls in the day", lambda each: each.counted, [(day.fewest_pulls(), "physical limit")]),
        (
            "most in any 6 hours",
            most_in_window,
            [(found[0].limit, "the limit"), (day.needed_quota(), "needed")],
        ),
        (f"failed jobs of {len(day.jobs)}", lambda each: len(each.failed), []),
        ("MB from upstream", lambda each: each.bytes_upstream / MB, []),
    ]
    figure, axes = _figure(1, len(panels), (12.0, 3.0), sharey=True)
    axes[0][0].invert_yaxis()
    for axis, (title, value, lines) in zip(axes[0], panels, strict=True):
        _bars(axis, found, value)
        axis.set_title(title, fontsize=10, color=INK, pad=22 if any(lines for *_, lines in panels) else 6)
        for at, text in lines:
            axis.axvline(at, color=WITHOUT, linewidth=1.2, linestyle="--")
            side = "right" if len(lines) > 1 and at == min(each for each, _ in lines) else "left"
            axis.text(
                at,
                1.02,
                f"{text} {at:g} ",
                transform=axis.get_xaxis_transform(),
                fontsize=8,
                color=WITHOUT,
                ha=side if len(lines) > 1 else "center",
            )
    _save(figure, file)


def draw_half(day: Day, pairs: Sequence[tuple[str, Findings, Findings]], file: Path) -> None:
    """Minute by minute: with the governor and without, a column for each pair."""
    figure, axes = _figure(4, len(pairs), (12.0, 9.0), sharex=True, sharey="row")
    for column, (title, governed, ungoverned) in enumerate(pairs):
        axes[0][column].set_title(title, fontsize=11, color=INK)
        for found, colour, label in ((ungoverned, WITHOUT, "without the governor"), (governed, OURS, "with it")):
            hours = [each.at / HOUR for each in found.samples]
            curves = (
                [each.remaining for each in found.samples],
                [each.counted for each in found.samples],
                _course(found, lambda each: each.failed is not None),
                _course(found, lambda each: each.outdated),
            )
            for row, curve in enumerate(curves):
                axes[row][column].plot(hours, curve, color=colour, linewidth=1.4, label=label)
        for row in range(4):
            _dress(axes[row][column], day, told=row == 0)
        axes[3][column].set_xlabel("hour of the day", fontsize=9, color=INK)
    names = (f"pulls left of {pairs[0][1].limit}", "counted pulls", "failed jobs", "outdated answers")
    for row, name in enumerate(names):
        axes[row][0].set_ylabel(name, fontsize=9, color=INK)
    axes[3][0].set_xlim(0, day.form.hours)
    axes[3][0].set_xticks(range(0, round(day.form.hours) + 1, 2))
    axes[0][0].legend(fontsize=8, loc="upper right", framealpha=0.9)
    _save(figure, file)


def _course(found: Findings, count: Callable[[Outcome], int]) -> list[int]:
    """How many so far, at each sample."""
    ended = sorted(found.outcomes, key=lambda each: each.ended)
    sums = [0]
    for each in ended:
        sums.append(sums[-1] + count(each))
    moments = [each.ended for each in ended]
    return [sums[bisect_right(moments, each.at)] for each in found.samples]


def _bars(axis: Any, found: Sequence[Findings], value: Callable[[Findings], float]) -> None:
    values = [value(each) for each in found]
    colours = [OURS if each.rival == "pullthrough" else OTHERS for each in found]
    names = [each.rival for each in found]
    axis.barh(names, values, color=colours, height=0.6)
    top = max(*values, 1.0)
    axis.set_xlim(0, top * 1.2)
    for row, each in enumerate(values):
        over_lines = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axis.text(each + top * 0.03, row, f"{each:.0f}", va="center", fontsize=9, color=INK, bbox=over_lines)
    axis.tick_params(labelsize=9, colors=INK)


def _dress(axis: Any, day: Day, *, told: bool) -> None:
    """What every course has: the outage, named if `told`, a grid, whole numbers from zero on."""
    begin, end = (each / HOUR for each in day.outage)
    axis.axvspan(begin, end, color=OUTAGE, linewidth=0)
    axis.set_ylim(bottom=0)
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.grid(axis="both", color="#eeeeee", linewidth=0.6)
    axis.tick_params(labelsize=8, colors=INK)
    if told:
        where = {"transform": axis.get_xaxis_transform(), "ha": "center", "va": "top"}
        axis.text((begin + end) / 2, 0.96, "outage", fontsize=7, color=INK, **where)


def _figure(rows: int, columns: int, size: tuple[float, float], **shared: Any) -> tuple[Any, Any]:
    """A figure that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **shared)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, file: Path) -> None:
    figure.savefig(file, dpi=DPI, metadata={"Software": None})
