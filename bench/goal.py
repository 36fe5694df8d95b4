"""What a figure has to be: the goals of the table, and the bounds by which CI is warned."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a figure stands to its goal."""

    AIM = "aim reached"
    MUST = "reached"
    MISSED = "**missed**"
    UNKNOWN = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Bounds for a figure of ours or, where a rival is named, for ours divided by the rival's."""

    must: float
    aim: float
    against: str | None = None
    ours: str = "pullthrough"

    def state(self, figure: float | None, *, more_is_better: bool) -> State:
        """Judge a figure; None is one that this run has not got."""
        if figure is None:
            return State.UNKNOWN
        for bound, state in ((self.aim, State.AIM), (self.must, State.MUST)):
            if figure >= bound if more_is_better else figure <= bound:
                return state
        return State.MISSED
