"""A line of the table: what the rounds gave for one row."""

from dataclasses import dataclass
from statistics import median

from bench.goal import Goal, State
from bench.row import Row


@dataclass(slots=True)
class Line:
    """What the rounds gave for one row: a list per rival, with None where the measurement failed."""

    row: Row
    figures: dict[str, list[float | None]]

    def median(self, rival: str) -> float | None:
        """Return the median of the rounds that gave a figure."""
        return median(figures) if (figures := self.of(rival)) else None

    def of(self, rival: str) -> list[float]:
        """Return the figures there are, none for a rival that did not run."""
        return [figure for figure in self.figures.get(rival, ()) if figure is not None]

    def ratios(self, ours: str, theirs: str) -> list[float]:
        """Return ours divided by theirs, for each round that has both."""
        rounds = zip(self.figures.get(ours, ()), self.figures.get(theirs, ()), strict=False)
        return [mine / other for mine, other in rounds if mine is not None and other]

    def judged(self, goal: Goal) -> list[float]:
        """Return what a goal of this row judges, by round."""
        return self.of(goal.ours) if goal.against is None else self.ratios(goal.ours, goal.against)

    def state(self, goal: Goal) -> State:
        """Judge the median of that."""
        figures = self.judged(goal)
        return goal.state(median(figures) if figures else None, more_is_better=self.row.more_is_better)


def number(figure: float) -> str:
    """Return a figure with three digits that mean something."""
    if abs(figure) >= 100:
        return f"{figure:,.0f}".replace(",", " ")
    return f"{figure:.3g}"
