"""The page: medians of each rival, medians and spread of the ratios within a round, and the goals, as Markdown."""

from collections.abc import Sequence
from statistics import median

from bench.goal import Goal
from bench.line import Line, number

NOTES = """\
Each figure is the median of the rounds. A ratio is one divided by the other within one round, where the rivals ran \
one after the other on the same work: the median of the rounds, and in brackets the lowest and the highest. An arrow \
says which way is better, for figures and for ratios. nginx does not verify what it stores; docker-registry asks \
upstream about a tag each time. pullthrough-2 is pullthrough with two workers. Load, upstream and rival share the \
machine; "on one core" is load that keeps to one. Small responses: `wrk`, 32 connections; bodies: readers that discard \
in the kernel. A `docker pull` is dockerd's, which unpacks the image, too; "direct" is past the cache, just before it. \
CPU and memory are summed over a rival's processes (for a peak, pages they share count for each). One round has no \
spread."""

GOALS = """\
The must and the aim of each goal: of our figure, or of its ratio to a rival's. What takes longest is measured by \
`--full` only; the start with a million entries is measured by `make million`."""

Pair = tuple[str, str]  # the first is divided by the second


def markdown(
    lines: Sequence[Line],
    rivals: Sequence[str],
    pairs: Sequence[Pair],
    about: Sequence[str],
    failures: Sequence[str],
) -> str:
    """Return the whole result as a page."""
    head = ["", "unit", *rivals, *(f"{ours} / {other}" for ours, other in pairs)]
    body = [_cells(line, rivals, pairs) for line in lines]
    parts = ["# Benchmark", " ".join(about), _table(head, 2, body), NOTES]
    if goals := [_goal_cells(line, goal) for line in lines for goal in line.row.goals]:
        parts += ["## Goals", GOALS, _table(["", "of what", "must", "aim", "is", ""], 2, goals)]
    if failures:
        parts.append("Failed:\n\n" + "\n".join(f"- {failure}" for failure in failures))
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], texts: int, body: Sequence[Sequence[str]]) -> str:
    """Lay out a table whose first columns are texts and whose other columns are numbers."""
    rows = [head, ["---"] * texts + ["---:"] * (len(head) - texts), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _cells(line: Line, rivals: Sequence[str], pairs: Sequence[Pair]) -> list[str]:
    arrow = "↑" if line.row.more_is_better else "↓"
    figures = ["failed" if (figure := line.median(rival)) is None else number(figure) for rival in rivals]
    return [line.row.title, f"{line.row.unit} {arrow}", *figures, *(_ratio(line.ratios(*pair)) for pair in pairs)]


def _goal_cells(line: Line, goal: Goal) -> list[str]:
    figures = line.judged(goal)
    side = "≥" if line.row.more_is_better else "≤"
    bounds = [f"{side} {number(bound)}" for bound in (goal.must, goal.aim)]
    what = line.row.unit if goal.against is None else f"{goal.ours} / {goal.against}"
    return [line.row.title, what, *bounds, number(median(figures)) if figures else "", line.state(goal)]


def _ratio(ratios: Sequence[float]) -> str:
    if not ratios:
        return "–"  # noqa: RUF001
    middle = f"**{median(ratios):.2f}**"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f}–{max(ratios):.2f})"  # noqa: RUF001
