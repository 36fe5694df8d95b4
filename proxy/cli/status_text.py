"""The status document as lines for people."""

from __future__ import annotations

import math
from typing import Any

from proxy.cli.text import bar, count, duration, short
from proxy.units import format_size

Document = dict[str, Any]


def status_text(document: Document, *, bars: bool) -> str:
    """All of it. `bars` draws the progress of fills, for a terminal."""
    lines = [
        f"pullthrough {document['version']}, up {duration(document['uptime_seconds'])}, on {document['listen']}"
        + (f", {document['workers']} processes" if document.get("workers", 1) > 1 else ""),
        "",
        *(line for each in document["upstreams"] for line in (_upstream(each), *_budget(each.get("budget")))),
        "",
        *_counters(document["counters"]),
        _cache(document["cache"]),
        *_fills(document["fills"], bars),
    ]
    return "\n".join(lines)


def _upstream(upstream: Document) -> str:
    parts = [f"as {upstream['account']}" if upstream["account"] else "anonymously", _quota(upstream["quota"])]
    if upstream["credentials"] == "rejected":
        parts.append("CREDENTIALS REJECTED: check the username and the token")
    if upstream["pulls_closed_seconds"]:
        parts.append(f"no pulls for {duration(upstream['pulls_closed_seconds'])}")
    if upstream["requests_closed_seconds"]:
        parts.append(f"no requests for {duration(upstream['requests_closed_seconds'])}")
    if upstream["breaker_open_seconds"] is not None:
        parts.append(f"CANNOT BE ASKED: tried again {_soon(upstream['breaker_open_seconds'])}")
    return f"{upstream['name']}: {', '.join(parts)}"


def _budget(budget: Document | None) -> list[str]:
    """How long the quota lasts, and what of it was saved."""
    if budget is None:
        return []
    lines = [] if budget["kind"] == "unknown" else [f"  quota: {budget['forecast']}"]
    if budget["level"] != "plenty":
        waiting = f"; {count(budget['waiting'], 'pull')} waiting for it" if budget["waiting"] else ""
        lines[-1:] = [f"  quota ({budget['level'].upper()}): {budget['forecast']}{waiting}"]
    if budget["bypass_suspected"]:
        pulls = count(budget["unexplained_pulls"], "pull")
        lines.append(f"  {pulls} NOT MADE BY THIS CACHE: somebody else uses this account or address")
    for when, title in (("since_start", "since the start"), ("ever", "since ever")):
        saved = budget["saved"][when]
        if any(saved.values()):
            lines.append(f"  saved {title}: {_saved(saved)}")
    return lines


def _saved(saved: Document) -> str:
    parts = [f"{count(saved['pulls'], 'pull')}, {format_size(saved['bytes'])}"]
    if saved["outages"]:
        parts.append(
            f"{count(saved['outages'], 'outage')} bridged with {count(saved['stale_answers'], 'stale answer')}"
        )
    return ", ".join(parts)


def _soon(seconds: float) -> str:
    return f"in {duration(math.ceil(seconds))}" if seconds else "with the next request"


def _quota(quota: Document | None) -> str:
    """What is left. Nothing heard is neither "unlimited" nor 0, and is said so."""
    if quota is None or quota["remaining"] is None:
        return "no limit heard of"
    limit = "" if quota["limit"] is None else f" of {quota['limit']}"
    window = "" if quota["window_seconds"] is None else f" in {duration(quota['window_seconds'])}"
    return f"{quota['remaining']}{limit} pulls left{window} (heard {duration(quota['observed_seconds_ago'])} ago)"


def _counters(counters: Document) -> list[str]:
    lines = [f"{'':<12}{'hits':>10}{'misses':>10}{'stale':>10}{'collapsed':>10}"]
    for kind, title in (("manifest", "manifests"), ("blob", "blobs")):
        numbers = [counters[name].get(kind, 0) for name in ("hits", "misses", "stale", "collapsed")]
        lines.append(f"{title:<12}" + "".join(f"{number:>10}" for number in numbers))
    served, fetched = (format_size(sum(counters[name].values())) for name in ("served_bytes", "fetched_bytes"))
    pulls = sum(counters["counted_pulls"].values())
    return [*lines, "", f"traffic: {served} served, {fetched} fetched, {count(pulls, 'counted pull')}"]


def _cache(cache: Document) -> str:
    blobs = count(cache["blobs"], "blob")
    held = f"{format_size(cache['bytes'])} on disk, {format_size(cache['memory_bytes'])} in memory"
    return f"cache:   {blobs}, {held}, in {cache['directory']}"


def _fills(fills: list[Document], bars: bool) -> list[str]:
    if not fills:
        return ["fills:   none running"]
    return [f"fills:   {len(fills)} running", *(_fill(each, bars) for each in fills)]


def _fill(fill: Document, bars: bool) -> str:
    received, size, seconds = fill["received"], fill["size"], fill["seconds"]
    progress = format_size(received) if size is None else f"{format_size(received)} of {format_size(size)}"
    share = received / size if size else None
    parts = [
        short(fill["digest"]),
        *([bar(share)] if bars and share is not None else []),
        *([f"{share:4.0%}"] if share is not None else []),
        progress,
        *([f"{format_size(int(received / seconds))}/s"] if seconds >= 1 else []),
        count(fill["readers"], "reader"),
        fill["repository"],
    ]
    return "  " + "  ".join(parts)
