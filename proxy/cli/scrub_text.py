"""How the scrub is, as lines for people."""

from __future__ import annotations

from typing import Any

from proxy.cli.text import at, bar, count, duration
from proxy.units import format_size

Document = dict[str, Any]


def progress_line(scrub: Document, *, bars: bool) -> str:
    """How far it is."""
    parts = [
        *([bar(scrub["position"])] if bars else []),
        f"{scrub['position']:4.0%}",
        f"{format_size(scrub['bytes'])} in {count(scrub['files'], 'file')}",
        *([_found(scrub)] if scrub["bad"] or scrub["missing"] else []),
        *([f"{duration(scrub['seconds_left'])} left"] if scrub["seconds_left"] is not None else []),
    ]
    return "  ".join(parts)


def status_text(scrub: Document) -> str:
    """How it is, or how the last one was."""
    now = scrub["now"]
    if scrub["running"]:
        return f"A scrub runs since {at(scrub['started_at'], now)}: {progress_line(scrub, bars=False).strip()}"
    if scrub["started_at"] is None:
        return "No scrub has run yet." if scrub["finished_at"] is None else _finished(scrub)
    read = f"{count(scrub['files'], 'file')}, {format_size(scrub['bytes'])} read"
    if scrub["finished_at"] is None or scrub["finished_at"] < scrub["started_at"]:
        return f"The scrub was ended at {scrub['position']:.0%}: {read}, {_found(scrub)}."
    if not scrub["bad"] and not scrub["missing"]:
        return f"All is well: {read}, each has its digest. {_finished(scrub)}"
    return (
        f"{_found(scrub)}: {read}. What is bad was set aside, in the folder bad of the cache; it is fetched again when "
        f"it is asked for, and so is what is missing. {_finished(scrub)}"
    )


def _finished(scrub: Document) -> str:
    return f"Finished {at(scrub['finished_at'], scrub['now'])}."


def _found(scrub: Document) -> str:
    return f"{scrub['bad']} bad, {scrub['missing']} missing"
