"""What an upstream lets us ask for now.

Docker Hub has two limits that both answer 429 (PROTOCOL 1.4). The *pull* limit counts GETs of manifests and nothing
else: HEADs and blobs go on while it is reached, so it closes the gate for manifest GETs alone. The *request* limit
guards the service against floods: it closes everything. A gate opens again after `Retry-After`; the pull gate also as
soon as the headers of a free HEAD say that quota is back. Where the limit came without `Retry-After` we wait a default
and then ask with a HEAD first (`probe_due`), so that a closed gate never costs a counted request.

An absent header is "unknown", never 0: paid accounts and sponsored repositories send none (PROTOCOL 1.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

from proxy.oci.errors import TooManyRequests

DEFAULT_PAUSE_SECONDS: Final = {"pulls": 120.0, "requests": 30.0}
MAX_PAUSE_SECONDS: Final = {"pulls": 6 * 3600.0, "requests": 15 * 60.0}
_EPOCH_THRESHOLD: Final = 1_000_000_000
_LIMIT: Final = re.compile(r"\s*(\d{1,12})\s*(?:;\s*w=(\d{1,9}))?", re.ASCII)


class Gate(Enum):
    """Which requests to an upstream a limit stops."""

    PULLS = "pulls"
    """GET of manifests."""
    REQUESTS = "requests"
    """Everything."""


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


def read_quota(headers: Mapping[str, str], now: float) -> Quota | None:
    """The quota in a manifest response's headers, or None if it says nothing of it. `now` is the monotonic clock."""
    limit = parse_limit(headers.get("ratelimit-limit", ""))
    remaining = parse_limit(headers.get("ratelimit-remaining", ""))
    source = headers.get("docker-ratelimit-source", "").strip() or None
    if limit is None and remaining is None:
        return None
    window = (limit and limit[1]) or (remaining and remaining[1]) or None
    return Quota(limit and limit[0], remaining and remaining[0], window, source, now)


class Limits:
    """The gates of one upstream and the last quota heard of. Synchronous; times are on the monotonic clock."""

    def __init__(self) -> None:
        self.quota: Quota | None = None
        self._closed_until: dict[Gate, float] = {}
        self._probe_first: set[Gate] = set()

    def observe(self, headers: Mapping[str, str], now: float) -> None:
        """Learn from the headers of a manifest response that was not refused."""
        quota = read_quota(headers, now)
        if quota is None:
            return
        self.quota = quota
        if quota.remaining:
            self.open(Gate.PULLS)
        elif quota.remaining == 0 and self.probe_due(now):
            self.refused(Gate.PULLS, None, now)

    def refused(self, gate: Gate, retry_after: float | None, now: float) -> None:
        """Upstream answered 429: close this gate for the seconds it said, or for our default."""
        pause = DEFAULT_PAUSE_SECONDS[gate.value] if retry_after is None else max(1.0, retry_after)
        self._closed_until[gate] = now + min(pause, MAX_PAUSE_SECONDS[gate.value])
        self._probe_first.add(gate)

    def open(self, gate: Gate) -> None:
        """Requests may pass this gate again."""
        self._closed_until.pop(gate, None)
        self._probe_first.discard(gate)

    def closed_for(self, gate: Gate, now: float) -> float | None:
        """The seconds for which this kind of request must not be sent, or None when it may be."""
        left = max(self._closed_until.get(each, now) for each in {gate, Gate.REQUESTS}) - now
        return left if left > 0 else None

    def is_exhausted(self, now: float) -> bool:
        """Whether a GET of a manifest would be refused, by us or, as far as upstream told, by upstream."""
        return self.closed_for(Gate.PULLS, now) is not None or (self.quota is not None and self.quota.remaining == 0)

    def check(self, gate: Gate, upstream: str, now: float) -> None:
        """Raises TooManyRequests, from memory, while this kind of request must not be sent."""
        left = self.closed_for(gate, now)
        if left is not None:
            what = "pull limit" if self.closed_for(Gate.REQUESTS, now) is None else "request limit"
            raise TooManyRequests(f"the {what} of {upstream} is reached and this is not cached", retry_after=left)

    def probe_due(self, now: float) -> bool:
        """Whether the pull gate's pause has ended without a word that quota is back: ask with a HEAD before a GET."""
        return Gate.PULLS in self._probe_first and self.closed_for(Gate.PULLS, now) is None
