"""Figures as Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[tuple[str, ...]], head: Sequence[str] = ("", "figure")) -> str:
    """A table; what is in the first column is a name, the rest are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(title: str, rows: Sequence[tuple[str, ...]], failures: Sequence[str]) -> str:
    """A title, the figures and what failed."""
    verdict = "Nothing failed." if not failures else "Failed:\n\n" + "\n".join(f"- {each}" for each in failures[:20])
    return f"## {title}\n\n{table(rows)}\n\n{verdict}\n"
