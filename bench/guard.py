"""The guard: what CI runs, so that nobody makes the cache much slower and does not notice.

It compares CPU time for a unit of work with nginx's in the same run, never time on the wall: that is steady where
others use the machine, too. The bounds are wide, and only the best of a few tries has to keep them.
"""

from collections.abc import Callable, Sequence

from bench.line import Line
from bench.rivals import NGINX, OURS
from bench.row import Work
from bench.run import Run

RIVALS = (OURS, NGINX)
TRIES = 3


def guarded(works: Sequence[Work]) -> list[Work]:
    """Return the work that the guard looks at."""
    return [work for work in works if any(row.guard is not None for row in work.rows)]


def regressions(lines: Sequence[Line]) -> list[str]:
    """Say what costs more of nginx's figure than may be; what was not measured at all is a complaint, too."""
    complaints = []
    for line in lines:
        if line.row.guard is None:
            continue
        ratios = line.ratios(OURS.name, NGINX.name)
        if not ratios:
            complaints.append(f"{line.row.title}: not measured")
        elif min(ratios) > line.row.guard:
            complaints.append(f"{line.row.title}: {min(ratios):.2f} of nginx's, at most {line.row.guard:g} is allowed")
    return complaints


def guard(run: Run, works: Sequence[Work], say: Callable[[str], None]) -> list[str]:
    """Do the work until each bound was kept once, but not for ever; return what failed."""
    complaints = []
    for work in works:
        for _ in range(TRIES):
            if not (found := regressions(run.measure(work))) or run.failures:
                break
            say("; ".join(found))
        complaints += found
    return [*run.failures, *complaints]
