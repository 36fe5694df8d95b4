"""The table: medians of each rival, medians and spread of the ratios within a round, as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.rows import Row

NOTES = """\
Each figure is the median of the rounds. A ratio is ours divided by theirs within one round, where the rivals ran one \
after the other on the same work: the median of the rounds, and in brackets the lowest and the highest. An arrow says \
which way is better, for figures and for ratios. nginx does not verify what it stores; docker-registry asks upstream \
about a tag each time. Load, upstream and rival share the machine. Small responses: `wrk`, 32 connections; bodies: \
readers that discard in the kernel. Memory is summed over a rival's processes. One round has no spread."""


@dataclass(slots=True)
class Line:
    """What the rounds gave for one row: a list per rival, with None where the measurement failed."""

    row: Row
    figures: dict[str, list[float | None]]

    def median(self, rival: str) -> float | None:
        """Return the median of the rounds that gave a figure."""
        figures = [figure for figure in self.figures[rival] if figure is not None]
        return median(figures) if figures else None

    def ratios(self, ours: str, theirs: str) -> list[float]:
        """Return ours divided by theirs, for each round that has both."""
        rounds = zip(self.figures[ours], self.figures[theirs], strict=True)
        return [mine / other for mine, other in rounds if mine is not None and other]


def markdown(lines: Sequence[Line], rivals: Sequence[str], about: Sequence[str], failures: Sequence[str]) -> str:
    """Return the whole result as a Markdown page; the first rival is compared with the others."""
    ours, *others = rivals
    head = ["", "unit", *rivals, *(f"{ours} / {other}" for other in others)]
    table = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    table += [_cells(line, ours, others) for line in lines]
    parts = [
        "# Benchmark",
        " ".join(about),
        "\n".join("| " + " | ".join(cells) + " |" for cells in table),
        NOTES,
    ]
    if failures:
        parts.append("Failed:\n\n" + "\n".join(f"- {failure}" for failure in failures))
    return "\n\n".join(parts) + "\n"


def _cells(line: Line, ours: str, others: Sequence[str]) -> list[str]:
    arrow = "↑" if line.row.more_is_better else "↓"
    figures = [_or_failed(line.median(rival)) for rival in (ours, *others)]
    ratios = [_ratio(line.ratios(ours, other)) for other in others]
    return [line.row.title, f"{line.row.unit} {arrow}", *figures, *ratios]


def number(figure: float) -> str:
    """Return a figure with three digits that mean something."""
    if abs(figure) >= 100:
        return f"{figure:,.0f}".replace(",", " ")
    return f"{figure:.3g}"


def _or_failed(figure: float | None) -> str:
    return "failed" if figure is None else number(figure)


def _ratio(ratios: Sequence[float]) -> str:
    if not ratios:
        return "–"  # noqa: RUF001
    middle = f"**{median(ratios):.2f}**"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f}–{max(ratios):.2f})"  # noqa: RUF001
