"""A repository, or an image with its parts, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from proxy.cli.ls_text import marks
from proxy.cli.text import Columns, ago, at, count, duration, printable, short
from proxy.units import format_size

_LABEL_CELLS: Final = 13

Document = dict[str, Any]


def repository_text(document: Document, *, whole: bool, width: int) -> Iterator[str]:
    """What is held of it, its tags, and its manifests without one."""
    now = document["now"]
    known = {True: "public", False: "private", None: "not known to be public"}[document["public"]]
    special = marks(document)
    yield f"{printable(document['repository'])}, {known}{', ' + special if special else ''}"
    shared = f", {format_size(document['shared_bytes'])} of it shared" if document["shared_bytes"] else ""
    yield (
        f"{format_size(document['bytes'])} on disk in {count(document['blobs'], 'blob')}{shared}; "
        f"last used {ago(document['used_at'], now)}"
    )
    if document["tags"]:
        yield ""
        columns = Columns(("TAG", "DIGEST", "SIZE", "LAST USED", "FRESHNESS"), right=(2,), width=width)
        yield from columns.lines([_tag(each, now, whole=whole) for each in document["tags"]])
    if document["untagged"]:
        yield ""
        columns = Columns(("WITHOUT A TAG", "SIZE", "LAST USED"), right=(1,), width=width)
        yield from columns.lines([_untagged(each, now, whole=whole) for each in document["untagged"]])


def image_text(document: Document, *, whole: bool, width: int) -> Iterator[str]:
    """What is known of it, and its parts with what is on disk of each."""
    now, image = document["now"], document["image"]
    tag = document.get("tag")
    digest = printable(document["digest"])
    yield printable(f"{document['repository']}:{tag}" if tag else f"{document['repository']}@{digest}")
    yield _line("digest", digest)
    yield _line("type", printable(image["media_type"] or "not known"))
    yield _line("freshness", _freshness(document, now) if tag else "a digest is never stale")
    if document.get("previous"):
        yield _line("before", printable(document["previous"]))
    if document["first_seen"] is not None:
        yield _line("first seen", at(document["first_seen"], now))
        yield _line("last seen", at(document["last_seen"], now))
    yield _line("last used", ago(image["used_at"], now))
    if document["pinned_at"] is not None:
        yield _line("pinned", f"{at(document['pinned_at'], now)}: never evicted")
    if document.get("vanished_at") is not None:
        yield _line("vanished", f"{at(document['vanished_at'], now)}: upstream does not give it any more")
    yield _line("on disk", _stored(image))
    yield ""
    columns = Columns(("PART", "DIGEST", "SIZE", "ON DISK", "SHARED WITH"), right=(2,), wide=4, width=width)
    yield from columns.lines(list(_parts(image, 0, whole=whole)))
    if _is_cut_short(image):
        yield "... and more parts than are shown"


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL_CELLS}}{text}"


def _freshness(tag: Document, now: float) -> str:
    if tag["vanished_at"] is not None:
        return f"vanished upstream {ago(tag['vanished_at'], now)}"
    left = tag["fresh_until"] - now
    by = f", by {printable(tag['source'])}" if tag["source"] else ""
    if left > 0 and now >= tag["checked_at"]:
        return f"fresh for {duration(max(1, left))}{by}"
    return f"stale, confirmed {ago(tag['checked_at'], now)}{by}"


def _tag(tag: Document, now: float, *, whole: bool) -> tuple[str, ...]:
    return (
        printable(tag["tag"]),
        _digest(tag["digest"], whole=whole),
        format_size(tag["bytes"]) if tag["stored"] else "-",
        ago(tag["used_at"], now) if tag["stored"] else "-",
        _freshness(tag, now),
    )


def _untagged(manifest: Document, now: float, *, whole: bool) -> tuple[str, ...]:
    return (
        _digest(manifest["digest"], whole=whole),
        format_size(manifest["size"]),
        ago(manifest["used_at"], now),
    )


def _parts(part: Document, depth: int, *, whole: bool) -> Iterator[tuple[str, ...]]:
    platform = part.get("platform")
    kind = f"{part['kind']} {platform}" if platform and part["kind"] == "manifest" else part["kind"]
    yield (
        printable("  " * depth + kind),
        _digest(part["digest"], whole=whole),
        "?" if part["size"] is None else format_size(part["size"]),
        "yes" if part["stored"] else "no",
        _sharers(part),
    )
    for each in part.get("parts", ()):
        yield from _parts(each, depth + 1, whole=whole)


def _sharers(part: Document) -> str:
    if not part["stored"]:
        return ""
    named = ", ".join(part["shared_with"])
    more = part["shared_count"] - len(part["shared_with"])
    return printable(f"{named} +{more}" if more > 0 else named)


def _stored(image: Document) -> str:
    """Each part once, whoever names it twice; of platforms that nobody pulled, the parts are not known."""
    known = {each["digest"]: each for each in _flat(image)}.values()
    held = [each for each in known if each["stored"]]
    size = format_size(sum(each["size"] for each in held))
    return f"{size}, {len(held)} of {count(len(known), 'known part')}"


def _flat(part: Document) -> Iterator[Document]:
    yield part
    for each in part.get("parts", ()):
        yield from _flat(each)


def _is_cut_short(image: Document) -> bool:
    return any(each.get("cut_short") for each in _flat(image))


def _digest(digest: str, *, whole: bool) -> str:
    return printable(digest) if whole else short(digest)
