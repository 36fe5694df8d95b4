"""The results of `pullthrough doctor` as lines for people and as a document for scripts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.doctor.findings import Result

_NAME_CELLS: Final = 20
_SIGNS: Final = {"ok": ("✓", "ok  "), "failed": ("✗", "FAIL"), "skipped": ("–", "-   ")}  # noqa: RUF001 (a dash)
_COLOURS: Final = {"ok": "\x1b[32m", "failed": "\x1b[1;31m", "skipped": "\x1b[2m"}
_PLAIN: Final = "\x1b[0m"


class Lines:
    """Writes results so that this encoding can carry them."""

    def __init__(self, encoding: str, *, colours: bool, width: int) -> None:
        self._encoding = encoding
        self._colours = colours
        self._width = max(width, 60)
        self._signs = 0 if _carries(encoding, "".join(sign for sign, _ in _SIGNS.values())) else 1

    def of(self, result: Result) -> str:
        """One line, and beneath what failed what to do next."""
        state, finding = result.finding.state.value, result.finding
        sign = _SIGNS[state][self._signs]
        if self._colours:
            sign = f"{_COLOURS[state]}{sign}{_PLAIN}"
        lines = [f"{sign} {result.name:<{_NAME_CELLS}} {_printable(finding.text)}"]
        if finding.cure is not None:
            lines += self._cure(finding.cure, " " * (len(_SIGNS[state][self._signs]) + 1))
        return "\n".join(lines).encode(self._encoding, "backslashreplace").decode(self._encoding)

    def _cure(self, cure: str, indent: str) -> list[str]:
        """Prose is wrapped; what is indented in it is to be copied, and stays as it is."""
        lines: list[str] = []
        for line in cure.splitlines():
            first = f"{indent}{'   ' if lines else '-> '}"
            if line.startswith(" "):
                lines.append(f"{indent}   {_printable(line)}")
                continue
            lines += textwrap.wrap(
                _printable(line),
                self._width,
                initial_indent=first,
                subsequent_indent=f"{indent}   ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        return lines


def summary(results: Sequence[Result]) -> str:
    """The last line."""
    wrong = [result.name for result in results if result.finding.state.value == "failed"]
    good = sum(1 for result in results if result.finding.state.value == "ok")
    if not wrong:
        return f"All is well: {good} of {len(results)} checks made, none failed."
    return f"{len(wrong)} of {len(results)} checks failed: {', '.join(wrong)}."


def document(results: Sequence[Result]) -> dict[str, object]:
    """For `--json`."""
    return {
        "ok": all(result.finding.state.value != "failed" for result in results),
        "checks": [
            {
                "name": result.name,
                "state": result.finding.state.value,
                "text": result.finding.text,
                "cure": result.finding.cure,
            }
            for result in results
        ],
    }


def _printable(text: str) -> str:
    """Without control characters, which file names and settings can hold."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _carries(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
