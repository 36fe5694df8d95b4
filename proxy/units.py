"""Durations and sizes as people write them, and back."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

_SECONDS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_BYTES: Final = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_NUMBER: Final = r"\d{1,15}(?:\.\d{1,9})?"
_PLAIN: Final = re.compile(rf"\A{_NUMBER}\Z", re.ASCII)
_DURATION: Final = re.compile(rf"({_NUMBER})(ms|[dhms])", re.ASCII)
_PERCENT: Final = re.compile(rf"\A({_NUMBER})\s*%\Z", re.ASCII)
_SIZE: Final = re.compile(rf"\A({_NUMBER})\s*([kKMGT]i?B|B)\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Share:
    """A part of something: so many bytes of it, or so many percent."""

    amount: float
    percent: bool = False

    def of(self, total: int) -> int:
        """The part in bytes, where the whole is of `total` bytes."""
        return int(total * self.amount / 100) if self.percent else int(self.amount)

    def __str__(self) -> str:
        return f"{self.amount:g}%" if self.percent else format_size(int(self.amount))


def parse_duration(text: str) -> float:
    """`5m`, `1h30m`, `500ms` or a number of seconds, as seconds. Raises ValueError."""
    text = text.strip()
    if _PLAIN.match(text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(text)
    return math.fsum(float(number) * _SECONDS[unit] for number, unit in parts)


def parse_size(text: str) -> int:
    """`32MiB`, `10 GB` or a number of bytes, as bytes. Raises ValueError."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return int(text)
    match = _SIZE.match(text)
    if match is None or match[2] not in _BYTES:
        raise ValueError(text)
    return int(float(match[1]) * _BYTES[match[2]])


def parse_share(text: str) -> Share:
    """`10%`, or what `parse_size` reads. Raises ValueError."""
    match = _PERCENT.match(text.strip())
    if match is None:
        return Share(parse_size(text))
    if float(match[1]) > 100:
        raise ValueError(text)
    return Share(float(match[1]), percent=True)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as this many seconds: `1h30m`, `0.5s`."""
    if seconds <= 0 or seconds != int(seconds):
        return f"{seconds:g}s"
    left, parts = int(seconds), []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_SECONDS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def format_size(size: int) -> str:
    """Bytes for people: `32MiB`, `1.5GiB`, `999B`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _BYTES[unit]:
            return f"{size / _BYTES[unit]:.1f}".removesuffix(".0") + unit
    return f"{size}B"
