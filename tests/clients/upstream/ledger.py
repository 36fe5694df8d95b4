"""What the upstream saw: the only witness of what a pull cost."""

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any, Self


@dataclass(slots=True)
class Ledger:
    """Counts since the last reset. A *counted pull* is what Docker Hub counts: an answered GET of a manifest."""

    counted_pulls: Counter[str] = field(default_factory=Counter)  # by the digest that was answered
    refused_pulls: int = 0  # GETs of manifests answered 429
    manifest_heads: int = 0
    listings: Counter[str] = field(default_factory=Counter)  # lists of tags and of referrers, by path and query
    blob_gets: Counter[str] = field(default_factory=Counter)  # by digest, on the CDN
    blob_bytes: Counter[str] = field(default_factory=Counter)  # by digest, written to the socket by the CDN
    tokens: Counter[str] = field(default_factory=Counter)  # by identity; "" is anonymous
    violations: list[str] = field(default_factory=list)  # what a well-behaved client never does

    def reset(self) -> None:
        for name, empty in Ledger().as_json().items():
            setattr(self, name, empty)

    def as_json(self) -> dict[str, object]:
        return {counted.name: getattr(self, counted.name) for counted in fields(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        ledger = cls(**content)
        for name in ("counted_pulls", "listings", "blob_gets", "blob_bytes", "tokens"):
            setattr(ledger, name, Counter(content[name]))
        return ledger
