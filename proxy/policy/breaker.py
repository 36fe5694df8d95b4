"""When an upstream that cannot be asked is left alone.

Closed: questions pass. After FAILURES in a row that got no answer (no connection, a time-out, a 5xx) it opens: then
they fail at once, so that what is stored is answered stale, and fallbacks are asked, without waiting for the next
failure. It opens for a second first and, while probes fail, for twice as long each time, up to MAX_SECONDS. Then it is
half open: one question at a time passes as the probe. Any answer closes it, a refusal too (404, 401, 429): upstream can
be asked. The pauses are short, since a cache that refuses longer than its upstream is down breaks pulls by itself.
"""

from __future__ import annotations

from typing import Final

FAILURES: Final = 5
FIRST_SECONDS: Final = 1.0
MAX_SECONDS: Final = 30.0
PROBE_SECONDS: Final = 1.0
"""What those are told to wait who come while a probe is under way."""
JITTER: Final = 0.25
"""By how much a pause may be shorter or longer, so that caches that failed together do not come back together."""


class Breaker:
    """The breaker of one upstream. Synchronous; times are on the monotonic clock."""

    def __init__(self) -> None:
        self._failures = 0
        self._pause = FIRST_SECONDS
        self._until: float | None = None
        self._probing = False

    def __repr__(self) -> str:
        return f"<Breaker {'closed' if self._until is None else f'open until {self._until:.1f}'}>"

    @property
    def is_open(self) -> bool:
        """Whether it has opened and upstream has not answered since: open, or half open."""
        return self._until is not None

    def open_for(self, now: float) -> float | None:
        """The seconds for which nothing is asked, 0 when the next question is a probe; None while it is closed."""
        return None if self._until is None else max(0.0, self._until - now)

    def refuses(self, now: float) -> float | None:
        """The seconds after which asking again makes sense; None when a question may pass now."""
        left = self.open_for(now)
        if left == 0.0 and self._probing:
            return PROBE_SECONDS
        return left or None

    def admit(self) -> bool:
        """A question that was not refused is asked now; whether it is the probe, which `failed` and `left` are told."""
        self._probing = self.is_open
        return self._probing

    def answered(self) -> None:
        """Upstream has answered, whatever it was."""
        self._failures = 0
        self._pause = FIRST_SECONDS
        self._until = None
        self._probing = False

    def failed(self, now: float, chance: float, *, probe: bool) -> None:
        """A question got no answer. `chance`, from 0 to 1, is for the jitter."""
        self._failures += 1
        if probe and self.is_open:
            self._pause = min(MAX_SECONDS, self._pause * 2)
            self._probing = False
        elif self.is_open or self._failures < FAILURES:
            return  # What was asked before it opened tells nothing new.
        self._until = now + min(MAX_SECONDS, self._pause * (1 - JITTER + 2 * JITTER * chance))

    def left(self, *, probe: bool) -> None:
        """A question was given up before it had an outcome: if it was the probe, the next one is."""
        if probe:
            self._probing = False
