"""The figures as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from economy.findings import Findings, Outcome
from economy.pace import clock_text
from economy.rivals import IMPORTANT, UNIMPORTANT
from economy.workload import Day

MB: Final = 1_000_000

HEAD: Final = (
    "",
    "counted pulls",
    "manifests asked for",
    "most in 6 h",
    "failed jobs",
    "429s",
    "MB from upstream",
    "outdated answers",
    "wrong bytes",
)
HALF_HEAD: Final = (
    "",
    "counted pulls",
    "failed jobs",
    "important ones",
    "429s",
    "outdated answers",
    "jobs that went around",
    "saved",
    "stretched",
    "waited",
    "refused",
)


def economy_table(day: Day, found: Sequence[Findings]) -> str:
    """The day with each rival, and the fewest pulls it can be done with."""
    rows = [
        (
            each.rival,
            str(each.counted),
            str(len(each.asked)),
            str(most_in_window(each)),
            f"{len(each.failed)} of {len(each.outcomes)}",
            str(each.limited),
            f"{each.bytes_upstream / MB:.1f}",
            str(each.outdated),
            str(len(each.wrong)),
        )
        for each in found
    ]
    limit = (
        "*physical limit*",
        str(day.fewest_pulls()),
        str(day.fewest_pulls()),
        str(day.needed_quota()),
        "0",
        "0",
        "",
        "",
        "0",
    )
    return _table(HEAD, [*rows, limit])


def half_table(found: Sequence[Findings]) -> str:
    """The day with half the quota that it needs."""
    rows = [
        (
            each.rival,
            str(each.counted),
            str(len(each.failed)),
            str(len(each.failed_of(IMPORTANT))),
            str(each.limited),
            str(each.outdated),
            str(sum(outcome.direct for outcome in each.outcomes)),
            *(str(each.decisions.get(name, 0)) for name in ("saved", "stretched", "waited", "refused")),
        )
        for each in found
    ]
    return _table(HALF_HEAD, rows)


def jobs_that_differ(governed: Findings, ungoverned: Findings) -> str:
    """Which jobs failed with the governor only, and which without it only."""
    with_it = {each.job.number: each for each in governed.failed}
    without = {each.job.number: each for each in ungoverned.failed}
    lost = [each for number, each in with_it.items() if number not in without]
    saved = [each for number, each in without.items() if number not in with_it]
    return "\n".join(
        (
            f"- Failed only without the governor: {_jobs(saved)}.",
            f"- Failed only with it: {_jobs(lost)}.",
            f"- Failed with and without it: {len(with_it) - len(lost)}.",
        )
    )


def most_in_window(found: Findings) -> int:
    """The most pulls that were counted in one window; no more are let through than the limit."""
    return found.limit - min((each.remaining for each in found.samples), default=found.limit)


def _jobs(outcomes: Sequence[Outcome]) -> str:
    """How many, and which."""
    if not outcomes:
        return "0"
    return f"{len(outcomes)} ({', '.join(f'{clock_text(each.job.at)} {_wanted(each)}' for each in outcomes)})"


def _wanted(outcome: Outcome) -> str:
    """The image that the job did not get, in a way that says how much it matters."""
    if outcome.missed.startswith(IMPORTANT):
        return f"**{outcome.missed}**"
    return f"*{outcome.missed}*" if outcome.missed.startswith(UNIMPORTANT) else outcome.missed


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
