"""The run: in each round, each piece of work is done to each rival, one directly after the other."""

from collections.abc import Callable, Sequence

from bench.errors import BenchError
from bench.line import Line, number
from bench.rivals import Rival
from bench.row import Work
from bench.stand import Stand

Say = Callable[[str], None]


class Run:
    """The rounds, and what they gave."""

    def __init__(self, stand: Stand, rivals: Sequence[Rival], works: Sequence[Work], say: Say) -> None:
        self._stand = stand
        self._rivals = rivals
        self._works = works
        self._say = say
        names = [rival.name for rival in rivals]
        self._lines = {work.name: [Line(row, {name: [] for name in names}) for row in work.rows] for work in works}
        self.failures: list[str] = []

    @property
    def lines(self) -> list[Line]:
        """The lines of the table, in its order."""
        return [line for work in self._works for line in self._lines[work.name]]

    def rounds(self, count: int) -> None:
        """Do all rounds."""
        for round_number in range(1, count + 1):
            for work in self._works:
                if round_number == 1 or not work.once:
                    self.measure(work, f"[{round_number}/{count}] ")

    def measure(self, work: Work, prefix: str = "") -> list[Line]:
        """Do a piece of work to each rival, and return its lines so far."""
        for rival in self._rivals:
            self._measure(f"{prefix}{rival.name}", work, rival)
        return self._lines[work.name]

    def _measure(self, prefix: str, work: Work, rival: Rival) -> None:
        figures: Sequence[float | None]
        try:
            figures = work.run(self._stand, rival)
        except BenchError as failure:
            figures = [None] * len(work.rows)
            self.failures.append(f"{rival.name}, {work.name}: {failure}")
            self._say(f"{prefix}: {work.name}: failed: {failure}")
        lines = self._lines[work.name]
        for line, figure in zip(lines, figures, strict=True):
            line.figures[rival.name].append(figure)
            if figure is not None:
                self._say(f"{prefix}: {line.row.title}: {number(figure)} {line.row.unit}")
