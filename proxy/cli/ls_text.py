"""What is stored, as lines for people."""

from __future__ import annotations

from typing import Any, Final

from proxy.cli.text import Columns, ago, count, printable
from proxy.units import format_size

_SHOWN_TAGS: Final = 3

Document = dict[str, Any]


class Listing:
    """Repositories, page by page."""

    def __init__(self, pattern: str, width: int) -> None:
        self._pattern = pattern
        self._columns = Columns(
            ("REPOSITORY", "TAGS", "SIZE", "SHARED", "LAST USED", ""), right=(2, 3), wide=1, width=width
        )
        self._number = 0
        self._cache: Document = {"blobs": 0, "bytes": 0}

    def lines(self, page: Document) -> list[str]:
        """One a repository."""
        found = page["repositories"]
        self._number += len(found)
        self._cache = page["cache"]
        return self._columns.lines([_row(each, page["now"]) for each in found]) if found else []

    def summary(self) -> str:
        """The last line."""
        blobs = f"{count(self._cache['blobs'], 'blob')}, {format_size(self._cache['bytes'])} on disk"
        if self._number:
            return f"\n{_repositories(self._number)}; the whole cache: {blobs} (what is shared is there once)"
        if self._pattern:
            return f"No repository is called like {printable(self._pattern)!r}; `pullthrough ls` lists them all."
        if self._cache["blobs"]:
            return f"No repository is known, but {blobs}: what is pulled again is found there and not fetched anew."
        return "Nothing is stored yet. `pullthrough setup CLIENT` shows how clients pull through this cache."


class VanishedListing:
    """What upstream does not give any more, page by page."""

    def __init__(self, pattern: str, width: int) -> None:
        self._pattern = pattern
        self._columns = Columns(("IMAGE", "VANISHED", "UPSTREAM SAYS"), wide=0, width=width)
        self._number = 0

    def lines(self, page: Document) -> list[str]:
        """One a tag, or a repository as a whole."""
        found = page["vanished"]
        self._number += len(found)
        rows = [
            (
                printable(each["name"] + (f":{each['tag']}" if each["tag"] else " (all of it)")),
                ago(each["vanished_at"], page["now"]),
                printable(each["reason"]),
            )
            for each in found
        ]
        return self._columns.lines(rows) if rows else []

    def summary(self) -> str:
        """The last line."""
        if self._number:
            return f"\n{self._number} vanished upstream, still served from here. `pullthrough pin` keeps a repository."
        if self._pattern:
            return f"Nothing called like {printable(self._pattern)!r} has vanished upstream."
        return "Nothing has vanished upstream: all that is stored is still there, as far as it was asked for."


def marks(entry: Document) -> str:
    """What is special about a repository."""
    found = ["pinned"] if entry["pinned_at"] is not None else []
    if entry["vanished_at"] is not None:
        found.append("vanished")
    elif entry["vanished_tags"]:
        found.append(f"{count(entry['vanished_tags'], 'tag')} vanished")
    return ", ".join(found)


def _row(entry: Document, now: float) -> tuple[str, ...]:
    shown = ", ".join(entry["tags"][:_SHOWN_TAGS])
    more = entry["tag_count"] - min(_SHOWN_TAGS, len(entry["tags"]))
    return (
        printable(entry["name"]),
        printable(f"{shown} +{more}" if more > 0 else shown or "-"),
        format_size(entry["bytes"]) if entry["blobs"] else "-",
        format_size(entry["shared_bytes"]) if entry["shared_bytes"] else "-",
        ago(entry["used_at"], now) if entry["blobs"] else "-",
        marks(entry),
    )


def _repositories(number: int) -> str:
    return count(number, "repository")
