"""The table of faults as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.faults.fault import Fault, Seen

PAGE = Path(__file__).parent.parent.parent / "docs" / "faults.md"
_HEAD = """\
# What happens when things go wrong

The tests in `tests/faults` wrote this page: each row is a fault that was made to happen to a running cache, with real
connections, and what was seen of it. In every row: no wrong bytes arrive as a complete body, no short body ends as if
it were complete, no answer is a 500, nothing is logged with a traceback, what has a name in the store has the digest of
that name, no file, fill or task is left behind, and the pull after the fault gets the right bytes.

*Bound*: seconds within which the client has its answer, on the tests' settings (`idle_timeout` 0.4 s and next to no
pauses between attempts; in operation it is as many seconds as the settings allow). *Metrics*: what moves besides the
counters that every pull moves, without `pullthrough_` and `_total`. *Next pull*: by a client who comes when it is over.
"""


def page(sections: Mapping[str, tuple[Fault, ...]], seen: Mapping[str, Seen]) -> str:
    """The whole page; `seen` by fault, as text."""
    parts = [_HEAD]
    for section, faults in sections.items():
        rows = [
            "| fault | asked for | bound | the client saw | on disk | metrics | next pull |",
            "|---|---|---:|---|---|---|---|",
        ]
        rows += [line(fault, seen[str(fault)]) for fault in faults]
        parts.append(f"## {section}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def line(fault: Fault, seen: Seen) -> str:
    """One row."""
    cells = (fault.title, fault.asked, f"{fault.within:g}", seen.client, seen.disk, seen.metrics, seen.then)
    return "| " + " | ".join(cells) + " |"
