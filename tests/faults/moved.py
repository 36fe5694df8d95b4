"""Which series of /metrics tell of a fault."""

from __future__ import annotations

from collections.abc import Mapping

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]

_TELLING = frozenset(
    {
        *("aborted", "connections_refused", "evicted_blobs", "fallback_answers", "fills_failed", "integrity_failures"),
        *("not_stored", "revalidations", "stale", "upstream_responses", "vanished"),
    }
)
"""Counters of what goes wrong. What the others say, which move with every pull, stands in the other columns."""
_GAUGES = ("pullthrough_credentials_rejected", "pullthrough_upstream_breaker_open")
_USUAL_VALUES = frozenset({"2xx", "3xx", "unchanged", "changed"})
_SHOWN = ("reason", "found", "code", "result", "kind")


def moved(before: Samples, after: Samples, *, refused: bool) -> str:
    """What went up, by name and by what its labels say of the fault, in words.

    Upstream's 4xx are told if it `refused` something; a challenge, which begins every acquaintance, is no refusal.
    """
    told = {
        _named(name, dict(labels))
        for (name, labels), value in after.items()
        if _tells(name, dict(labels))
        and value > before.get((name, labels), 0.0)
        and (refused or ("code", "4xx") not in labels)
    }
    return ", ".join(sorted(told)) or "–"  # noqa: RUF001


def _tells(name: str, labels: Mapping[str, str]) -> bool:
    if name in _GAUGES:
        return True
    if not name.startswith("pullthrough_") or not name.endswith("_total"):
        return False
    return _short(name) in _TELLING and not _USUAL_VALUES & set(labels.values())


def _named(name: str, labels: Mapping[str, str]) -> str:
    words = [labels[key] for key in _SHOWN if key in labels]
    return " ".join([f"`{_short(name)}`", *words])


def _short(name: str) -> str:
    return name.removeprefix("pullthrough_").removesuffix("_total")
