"""What eviction removes and what it leaves, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from proxy.cli.text import Columns, ago, count, printable, short
from proxy.units import format_size

SHOWN_ITEMS: Final = 20

_REASONS: Final = {
    "room": "the room is needed ([cache] max_size, min_free)",
    "age": "not used for too long ([cache] max_age)",
    "in use": "it is being sent or fetched",
    "pinned": "its repository is pinned",
    "grace": "used a short while ago ([cache] grace)",
}

Document = dict[str, Any]


def plan_text(plan: Document, width: int) -> Iterator[str]:
    """What would go and why, and what would stay although something asks for it."""
    verdicts, leftovers = plan["verdicts"], plan["leftovers"]
    goes = {reason: each for reason, each in verdicts.items() if each["removed"]}
    stays = {reason: each for reason, each in verdicts.items() if not each["removed"]}
    if not goes and not leftovers["files"]:
        yield "Nothing has to go: there is room enough, and nothing is too old."
    if leftovers["files"]:
        size = format_size(leftovers["bytes"])
        yield f"would go:   {count(leftovers['files'], 'partial file')} ({size}): left by fetches that broke"
    for title, found in (("would go:  ", goes), ("would stay:", stays)):
        for reason, each in found.items():
            amount = f"{count(each['blobs'], 'blob')} ({format_size(each['bytes'])})"
            yield f"{title} {amount}: {printable(_REASONS.get(reason, reason))}"
    items = [each for each in plan["items"] if each["removed"]]
    if not items:
        return
    yield ""
    columns = Columns(("DIGEST", "SIZE", "LAST USED", "KIND", "WHY"), right=(1,), width=width)
    yield from columns.lines([_item(each, plan["now"]) for each in items[:SHOWN_ITEMS]])
    more = sum(each["blobs"] for each in goes.values()) - min(SHOWN_ITEMS, len(items))
    if more > 0:
        yield f"... and {more} more; --json tells of a thousand"


def done_text(document: Document) -> str:
    """What went."""
    if not document["bytes"] and not document["blobs"]:
        return "Nothing had to go: there is room enough, and nothing is too old."
    return f"{count(document['blobs'], 'blob')} evicted, {format_size(document['bytes'])} freed."


def _item(item: Document, now: float) -> tuple[str, ...]:
    kind = "manifest" if item["manifest"] else "blob"
    return short(item["digest"]), format_size(item["size"]), ago(item["used_at"], now), kind, printable(item["reason"])
