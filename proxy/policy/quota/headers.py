"""What an upstream tells of its pull quota in the headers of a manifest (PROTOCOL 1.3, 1.4).

An absent header is "unknown", never 0, and an empty one is an absent one. Paid accounts get no limit, only the name of
the account; sponsored repositories get nothing, which says nothing of the account.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

_EPOCH_THRESHOLD: Final = 1_000_000_000
_LIMIT: Final = re.compile(r"\s*(\d{1,12})\s*(?:;\s*w=(\d{1,9}))?", re.ASCII)
_MAX_SOURCE: Final = 100


@dataclass(frozen=True, slots=True)
class Quota:
    """What an upstream last said of its pull quota. `window` in seconds; `source` is an account id or an address."""

    limit: int | None
    remaining: int | None
    window: int | None
    source: str | None
    observed_at: float
    """On the monotonic clock."""


def parse_limit(value: str) -> tuple[int, int | None] | None:
    """`100;w=21600` as (100, 21600); of a policy list `100, 100;w=21600` the entry with a window. None if neither."""
    entries = [match for part in value.split(",") if (match := _LIMIT.match(part))]
    if not entries:
        return None
    chosen = next((entry for entry in entries if entry[2]), entries[0])
    return int(chosen[1]), int(chosen[2]) if chosen[2] else None


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait, None if unclear. `now` is the wall clock: Hub was seen to send an epoch (PROTOCOL 1.4)."""
    text = (value or "").strip()
    if re.fullmatch(r"\d{1,12}", text, re.ASCII):
        number = float(text)
        return max(0.0, number - now) if number > _EPOCH_THRESHOLD else number
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now) if text else None
    except (ValueError, OverflowError):
        return None


def read_source(headers: Mapping[str, str]) -> str | None:
    """Whose quota it is: the id of an account or an address; None if it is not told, or is nothing to show anybody."""
    source = headers.get("docker-ratelimit-source", "").strip()
    return source if source and source.isprintable() and len(source) <= _MAX_SOURCE else None


def read_quota(headers: Mapping[str, str], now: float) -> Quota | None:
    """The quota in a manifest response's headers, or None if it says nothing of it. `now` is the monotonic clock."""
    limit = parse_limit(headers.get("ratelimit-limit", ""))
    remaining = parse_limit(headers.get("ratelimit-remaining", ""))
    if limit is None and remaining is None:
        return None
    window = (limit and limit[1]) or (remaining and remaining[1]) or None
    return Quota(limit and limit[0], remaining and remaining[0], window, read_source(headers), now)
