"""The pull quota of an upstream: what was heard of it, what was spent of it, and what to do as it runs out.

headers.py    what upstream tells, and what it leaves out
gates.py      the limits that answered 429, and when they open again
ledger.py     every observation and every counted pull, for a window and more
descent.py    how a counter fell that moves in steps
leak.py       pulls of this account that we did not make
forecast.py   when it will be used up, and when some of it comes back; words.py says so to people
governor.py   how careful to be, and with what
account.py    all of this for one account at one upstream
purpose.py    who asked for a pull, and why it was needed

All of it is pure: the clock is an argument, and times are on the monotonic clock unless they say otherwise.
"""

from __future__ import annotations

from proxy.policy.quota.gates import DEFAULT_PAUSE_SECONDS, MAX_PAUSE_SECONDS, Gate, Limits
from proxy.policy.quota.headers import Quota, parse_limit, parse_retry_after, read_quota

__all__ = [
    "DEFAULT_PAUSE_SECONDS",
    "MAX_PAUSE_SECONDS",
    "Gate",
    "Limits",
    "Quota",
    "parse_limit",
    "parse_retry_after",
    "read_quota",
]
