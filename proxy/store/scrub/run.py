"""One reading of everything that is stored: how far it is, and the text that a restart goes on from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.oci.errors import DigestInvalid
from proxy.oci.names import Digest

_DIGITS: Final = 8
_MOVED: Final = 0.001
"""How much has to be done before it says something of the rest."""


@dataclass(slots=True)
class Run:
    """`started_at` since the epoch. One that was `asked` for by a person goes at its own `rate`, in bytes a second
    (None: no limit); any other at that of the configuration."""

    started_at: float
    asked: bool = False
    rate: int | None = None
    after: Digest | None = None
    """All up to this one is done."""
    position: float = 0.0
    """From 0 to 1."""
    files: int = 0
    bytes: int = 0
    bad: int = 0
    missing: int = 0
    ended: bool = False
    algorithms: list[str] = field(default_factory=list)
    """Those that there are blobs of."""
    _taken_up: tuple[float, float] | None = field(default=None, compare=False)
    """When by the monotonic clock, and where."""

    def take_up(self, now: float) -> None:
        """It goes on now, by the monotonic clock."""
        self._taken_up = now, self.position

    def is_to_come(self, digest: Digest) -> bool:
        """Whether this one was not read yet."""
        return self.after is None or (digest.algorithm, digest.hex) > (self.after.algorithm, self.after.hex)

    def add(self, files: int, size: int, last: Digest | None) -> None:
        """So much was read, and all is done up to `last`."""
        self.files += files
        self.bytes += size
        if last is not None:
            self.after = last
            self.advance(last.algorithm, last.hex)

    def advance(self, algorithm: str, hexadecimal: str) -> None:
        """It has come to this digest, or beginning of digests: they are spread evenly, so the first digits tell."""
        part = int(hexadecimal[:_DIGITS].ljust(_DIGITS, "0"), 16) / 16**_DIGITS
        self.position = (self.algorithms.index(algorithm) + part) / len(self.algorithms)

    def seconds_left(self, now: float) -> float | None:
        """What the rest should take, at the speed so far."""
        if self.ended or self._taken_up is None:
            return None
        began, position = self._taken_up
        moved = self.position - position
        return None if moved < _MOVED else (now - began) * (1 - self.position) / moved

    def dump(self) -> str:
        """What `parse` reads."""
        after = None if self.after is None else str(self.after)
        return json.dumps({**{name: getattr(self, name) for name in _NUMBERS}, "rate": self.rate, "after": after})

    @classmethod
    def parse(cls, text: str | None) -> Run | None:
        """None for what cannot be understood: then a run is due."""
        try:
            document = json.loads(text or "")
            numbers: dict[str, Any] = {name: kind(document[name]) for name, kind in _NUMBERS.items()}
            after = None if document["after"] is None else Digest.parse(document["after"])
            rate = None if document["rate"] is None else int(document["rate"])
        except (ValueError, KeyError, TypeError, AttributeError, DigestInvalid):
            return None
        return cls(**numbers, rate=rate, after=after)


_NUMBERS: Final = {
    "started_at": float,
    "asked": bool,
    "position": float,
    "files": int,
    "bytes": int,
    "bad": int,
    "missing": int,
    "ended": bool,
}
