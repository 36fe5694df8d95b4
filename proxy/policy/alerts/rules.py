"""When something is wrong, and what to do about it: the rules of config/prometheus/pullthrough.rules.yml, in Python.

Names, thresholds, `for` and words are the same there and here, and a test compares them. PullthroughDown is there only:
nobody can say of himself that he is down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from proxy.policy.alerts.facts import Facts, Labels, Severity, UpstreamFacts
from proxy.policy.alerts.trends import HOUR, Trends
from proxy.policy.quota.words import period

LOW: Final = 0.1
SOON_SECONDS: Final = 3600.0
MINUTE: Final = 60.0

Finding = tuple[Labels, str]
"""What is wrong, and a summary of it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert. It stands once what `find` yields was yielded for `after` seconds, and ends when it no longer is.

    One that an earlier process has raised is believed for `believed` seconds: so long a new one may need to see it too.
    """

    name: str
    severity: Severity
    after: float
    description: str
    find: Callable[[Facts, Trends, float], Iterator[Finding]]
    believed: float = 15 * MINUTE


def _low(facts: Facts, trends: Trends, now: float) -> Iterator[Finding]:
    for each in facts.upstreams:
        if each.limit and each.remaining and each.remaining / each.limit < LOW:
            yield _account(each), f"{each.name}: {_percent(each.remaining / each.limit)} of the pull quota is left"


def _exhausted(facts: Facts, trends: Trends, now: float) -> Iterator[Finding]:
    for each in facts.upstreams:
        if each.remaining == 0:
            yield _account(each), f"{each.name}: the pull quota of {each.account} is used up"


def _soon(facts: Facts, trends: Trends, now: float) -> Iterator[Finding]:
    for each in facts.upstreams:
        seconds = each.exhausted_seconds
        if seconds is not None and seconds < SOON_SECONDS:
            yield _upstream(each), f"{each.name}: at this rate the pull quota is used up in {_minutes(seconds)}"


def _bypass(facts: Facts, trends: Trends, now: float) -> Iterator[Finding]:
    for each in facts.upstreams:
        if each.bypass_suspected:
            said = "somebody pulls with this account or address and not through the cache"
            yield _upstream(each), f"{each.name}: {said}"


def _limited(facts: Facts, trends: Trends, now: float) -> Iterator[Finding]:
    for each in facts.upstreams:
        if trends.has_grown("limited", each.name, 15 * MINUTE, now):
            yield _upstream(each), f"{each.name} is asked too often and answers nothing for a while"


def _refused(facts: Facts, trends: Trends, now: float) -> Iterator[Finding]:
    for each in facts.upstreams:
        if each.credentials_rejected:
            yield _upstream(each), f"{each.name} refuses the configured credentials"


def _unreachable(facts: Facts, trends: Trends, now: float) -> Iterator[Finding]:
    for each in facts.upstreams:
        if each.breaker_open:
            yield _upstream(each), f"{each.name} could not be asked several times in a row"


def _fell(facts: Facts, trends: Trends, now: float) -> Iterator[Finding]:
    for kind, ratio in trends.fallen_hit_ratios():
        yield (("kind", kind),), f"the hit ratio of {kind}s fell to {_percent(ratio)}"


def _full(facts: Facts, trends: Trends, now: float) -> Iterator[Finding]:
    if trends.has_grown("not_stored", "", 15 * MINUTE, now):
        yield (), "the cache is full and blobs are passed through without being stored"


def _bad(facts: Facts, trends: Trends, now: float) -> Iterator[Finding]:
    for found in facts.integrity_failures:
        if trends.has_grown("integrity", found, HOUR, now):
            yield (("found", found),), f"stored content was found bad or missing ({found})"


def _vanished(facts: Facts, trends: Trends, now: float) -> Iterator[Finding]:
    for each in facts.upstreams:
        if trends.has_grown("vanished", each.name, HOUR, now):
            yield _upstream(each), f"{each.name} has no more what the cache still serves"


def _upstream(facts: UpstreamFacts) -> Labels:
    return (("upstream", facts.name),)


def _account(facts: UpstreamFacts) -> Labels:
    return (("upstream", facts.name), ("account", facts.account))


def _percent(share: float) -> str:
    return f"{share * 100:.4g}%"


def _minutes(seconds: float) -> str:
    return "a minute" if seconds < 1.5 * MINUTE else period(seconds)


RULES: Final = (
    Rule(
        "PullQuotaLow",
        "warning",
        5 * MINUTE,
        "What is cached is served on; new images will soon be refused upstream. See who pulls what in the cache's log, "
        "lengthen [freshness] tags, or give the cache an account with a higher limit.",
        _low,
    ),
    Rule(
        "PullQuotaExhausted",
        "critical",
        1 * MINUTE,
        "What is cached is served on; images that are not are answered with 429 until the window gives some back.",
        _exhausted,
    ),
    Rule(
        "PullQuotaUsedUpSoon",
        "warning",
        10 * MINUTE,
        "`pullthrough top` says which images and which clients spend it.",
        _soon,
    ),
    Rule(
        "PullQuotaBypassSuspected",
        "warning",
        10 * MINUTE,
        "The quota falls faster than this cache's own pulls explain. Look for machines without the mirror, and for "
        "other uses of the access token.",
        _bypass,
    ),
    Rule(
        "UpstreamRequestLimitReached",
        "warning",
        0.0,
        "This is the limit on requests of any kind, not the pull quota. The cache asks nothing until it is told to, "
        "and slowly after that; what is cached is served on. Look for a flood of misses, and for others at this "
        "address.",
        _limited,
    ),
    Rule(
        "UpstreamRefusesCredentials",
        "critical",
        1 * MINUTE,
        "The cache asks anonymously meanwhile, with a lower limit. The access token has expired or was revoked: make "
        "another, put it where password_file points, and reload.",
        _refused,
    ),
    Rule(
        "UpstreamUnreachable",
        "warning",
        5 * MINUTE,
        "What is cached is served on, tags as they were. `pullthrough doctor` says whether it is the name, the "
        "network, TLS or the registry.",
        _unreachable,
    ),
    Rule(
        "PullthroughHitRatioFell",
        "warning",
        30 * MINUTE,
        "It was more than twice as high over the last day. New images, a purge, or a cache that is too small: "
        "pullthrough_evicted_bytes_total says which.",
        _fell,
    ),
    Rule(
        "PullthroughDiskFull",
        "warning",
        15 * MINUTE,
        "Pulls succeed, but nothing is saved. Give it more room ([cache] max_size, min_free), or see what takes it: "
        "`pullthrough ls`, `pullthrough gc --dry-run`.",
        _full,
    ),
    Rule(
        "PullthroughIntegrityFailure",
        "critical",
        0.0,
        "It was set aside below bad/ and is fetched again; nobody was served wrong bytes. Look at the disk: `dmesg`, "
        "`smartctl -a`.",
        _bad,
        believed=HOUR,
    ),
    Rule(
        "ImageVanishedUpstream",
        "info",
        0.0,
        "`pullthrough ls --vanished` names the images. Pin them, or move to others.",
        _vanished,
        believed=HOUR,
    ),
)

NAMES: Final = tuple(rule.name for rule in RULES)
