"""What an upstream lets us ask for now.

Docker Hub has two limits that both answer 429 (PROTOCOL 1.4). The *pull* limit counts GETs of manifests and nothing
else: HEADs and blobs go on while it is reached, so it closes the gate for manifest GETs alone. The *request* limit
guards the service against floods: it closes everything. A gate opens again after `Retry-After`; the pull gate also as
soon as the headers of a free HEAD say that quota is back. Where the limit came without `Retry-After` we wait a default
and then ask with a HEAD first (`probe_due`), so that a closed gate never costs a counted request.

Caches that met the request limit together must not come back together, nor all at once with what has gathered: that
gate opens a little later than it was told, at random, and for a minute after it what passes is spaced (`slot`).

An absent header is "unknown", never 0: paid accounts and sponsored repositories send none (PROTOCOL 1.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from proxy.oci.errors import TooManyRequests
from proxy.policy.quota.headers import Quota, read_quota

DEFAULT_PAUSE_SECONDS: Final = {"pulls": 120.0, "requests": 30.0}
MAX_PAUSE_SECONDS: Final = {"pulls": 6 * 3600.0, "requests": 15 * 60.0}
JITTER: Final = 0.25
"""By how much a pause of the request limit may be longer; never shorter than upstream said."""
RECOVERY_SECONDS: Final = 60.0
"""For how long what passes is spaced after the request limit has opened again."""
FIRST_SPACING_SECONDS: Final = 0.5
"""Between two requests at first; less and less until the recovery is over."""
MAX_SLOT_SECONDS: Final = 5.0
"""The longest that a request waits for its turn: more are refused, and told when to come again."""


class Gate(Enum):
    """Which requests to an upstream a limit stops."""

    PULLS = "pulls"
    """GET of manifests."""
    REQUESTS = "requests"
    """Everything."""


class Limits:
    """The gates of one upstream and the last quota heard of. Synchronous; times are on the monotonic clock."""

    def __init__(self) -> None:
        self.quota: Quota | None = None
        self._closed_until: dict[Gate, float] = {}
        self._probe_first: set[Gate] = set()
        self._told: set[Gate] = set()
        self.refusals = dict.fromkeys(Gate, 0)
        """How often upstream answered 429."""
        self._recovering_from = float("-inf")
        self._next_slot = float("-inf")

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

    def forget_quota(self) -> None:
        """What was heard of a limit does not hold any more: there is none, or it is of another account."""
        self.quota = None

    def refused(self, gate: Gate, retry_after: float | None, now: float, chance: float = 0.0) -> None:
        """Upstream answered 429: close this gate for the seconds it said, or for our default.

        `chance`, from 0 to 1, is for the jitter.
        """
        pause = DEFAULT_PAUSE_SECONDS[gate.value] if retry_after is None else max(1.0, retry_after)
        pause = min(pause, MAX_PAUSE_SECONDS[gate.value])
        if gate is Gate.REQUESTS:
            pause *= 1 + JITTER * chance
            self._recovering_from = now + pause
        self.refusals[gate] += 1
        self._told = self._told - {gate} if retry_after is None else self._told | {gate}
        self._close(gate, now + pause)

    def was_told(self, gate: Gate) -> bool:
        """Whether it was upstream that said for how long this gate is closed, and not our own default."""
        return gate in self._told

    def open(self, gate: Gate) -> None:
        """Requests may pass this gate again."""
        self._closed_until.pop(gate, None)
        self._probe_first.discard(gate)

    def closed_for(self, gate: Gate, now: float) -> float | None:
        """The seconds for which this kind of request must not be sent, or None when it may be."""
        left = max(self._closed_until.get(each, now) for each in {gate, Gate.REQUESTS}) - now
        return left if left > 0 else None

    def pulls_refused_for(self, now: float) -> float | None:
        """The seconds for which the pull limit alone stops GETs of manifests; None while it does not."""
        until = self._closed_until.get(Gate.PULLS)
        return until - now if until is not None and until > now else None

    def is_exhausted(self, now: float) -> bool:
        """Whether a GET of a manifest would be refused, by us or, as far as upstream told, by upstream."""
        return self.closed_for(Gate.PULLS, now) is not None or (self.quota is not None and self.quota.remaining == 0)

    def check(self, gate: Gate, upstream: str, now: float) -> None:
        """Raises TooManyRequests, from memory, while this kind of request must not be sent."""
        left = self.closed_for(gate, now)
        if left is not None:
            what = "pull limit" if self.closed_for(Gate.REQUESTS, now) is None else "request limit"
            raise TooManyRequests(f"the {what} of {upstream} is reached and this is not cached", retry_after=left)

    def slot(self, upstream: str, now: float) -> float:
        """The seconds that this request has to wait for its turn, which is then its own: 0 but for a recovery.

        Raises TooManyRequests when too many wait for theirs.
        """
        share = (self._recovering_from + RECOVERY_SECONDS - now) / RECOVERY_SECONDS
        if not 0 < share <= 1:
            return 0.0
        turn = max(now, self._next_slot)
        if turn - now > MAX_SLOT_SECONDS:
            raise TooManyRequests(f"{upstream} was asked too often, and is asked slowly now", retry_after=turn - now)
        self._next_slot = turn + FIRST_SPACING_SECONDS * share
        return turn - now

    def probe_due(self, now: float) -> bool:
        """Whether the pull gate's pause has ended without a word that quota is back: ask with a HEAD before a GET."""
        return Gate.PULLS in self._probe_first and self.closed_for(Gate.PULLS, now) is None

    def closed(self, now: float) -> dict[Gate, float]:
        """The gates that are closed, and for how many seconds more: what outlives the process."""
        return {gate: until - now for gate, until in self._closed_until.items() if until > now}

    def restore(self, closed: Mapping[Gate, float], now: float) -> None:
        """Gates that an earlier process left closed, and for how many seconds more."""
        for gate, left in closed.items():
            if left > 0 and gate not in self._closed_until:
                self._close(gate, now + min(left, MAX_PAUSE_SECONDS[gate.value]))
                if gate is Gate.REQUESTS:
                    self._recovering_from = self._closed_until[gate]

    def _close(self, gate: Gate, until: float) -> None:
        self._closed_until[gate] = until
        self._probe_first.add(gate)
