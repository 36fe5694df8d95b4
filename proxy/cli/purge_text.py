"""What a purge removes, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from proxy.cli.text import Columns, ago, count, printable, short
from proxy.units import format_size

SHOWN_ITEMS: Final = 20

Document = dict[str, Any]


def plan_text(plan: Document, width: int) -> Iterator[str]:
    """What would go, and what would stay."""
    removed, kept = plan["removed"], plan["kept"]
    yield f"{_what(plan)}: {_amount(removed)} would go{_tags(plan)}"
    if kept["blobs"]:
        yield f"{_amount(kept)} would stay on disk: other repositories hold the same"
    if plan["needed"]["blobs"]:
        yield f"{_amount(plan['needed'])} would stay: other images of the repository need the same"
    if plan.get("pinned_at") is not None:
        yield "It is pinned, and stays so: what is pulled of it from then on is kept. `pullthrough unpin` ends that."
    items = sorted(plan["items"], key=lambda each: (not each["removed"], -each["size"]))
    if items:
        yield ""
        columns = Columns(("DIGEST", "SIZE", "LAST USED", ""), right=(1,), width=width)
        yield from columns.lines([_item(each, plan["now"]) for each in items[:SHOWN_ITEMS]])
        more = removed["blobs"] + kept["blobs"] - SHOWN_ITEMS
        if more > 0:
            yield f"... and {more} more"


def done_text(done: Document) -> str:
    """What went."""
    lines = [f"{_what(done)}: {_amount(done['removed'])} removed{_tags(done)}."]
    if done["kept"]["blobs"]:
        lines.append(f"Still on disk, since other repositories hold the same: {_amount(done['kept'])}.")
    if done["needed"]["blobs"]:
        lines.append(f"Still there, since other images of the repository need the same: {_amount(done['needed'])}.")
    return "\n".join(lines)


def _what(document: Document) -> str:
    return printable(document["repository"]) if "repository" in document else "Not used for so long"


def _tags(document: Document) -> str:
    tags = document["tags"]
    if not tags:
        return ""
    named = ", ".join(printable(tag) for tag in tags[:5])
    return f", and the tag{'s' if len(tags) > 1 else ''} {named}{f' +{len(tags) - 5}' if len(tags) > 5 else ''}"


def _amount(part: Document) -> str:
    return f"{count(part['blobs'], 'blob')} ({format_size(part['bytes'])})"


def _item(item: Document, now: float) -> tuple[str, ...]:
    kind = "manifest" if item["manifest"] else ""
    stays = "" if item["removed"] else f"stays: held by {count(item['shared_count'], 'other repository')}"
    return short(item["digest"]), format_size(item["size"]), ago(item["used_at"], now), stays or kind
