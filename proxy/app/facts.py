"""What alerts are made of, gathered from those who know it. No disk and no upstream is asked."""

from __future__ import annotations

from proxy.app.generation import Generation
from proxy.config import UpstreamOptions
from proxy.metrics import Metrics
from proxy.policy.alerts import Facts, UpstreamFacts
from proxy.policy.quota import Gate
from proxy.quota.report import Report


def gather_facts(generation: Generation, report: Report, metrics: Metrics) -> Facts:
    """How the cache is now: the numbers of /metrics."""
    counts = metrics.alerting()
    samples = {sample.upstream: sample for sample in report.samples()}

    def upstream(options: UpstreamOptions) -> UpstreamFacts:
        found, sample = generation.upstreams[options.name], samples[options.name]
        quota = found.limits.quota
        return UpstreamFacts(
            name=options.name,
            account=found.account.name,
            limit=None if quota is None else quota.limit,
            remaining=None if quota is None else quota.remaining,
            exhausted_seconds=sample.exhausted_seconds,
            bypass_suspected=sample.bypass_suspected,
            credentials_rejected=found.credentials_state() == "rejected",
            breaker_open=found.breaker_open_for() is not None,
            limited=found.limits.refusals[Gate.REQUESTS],
            vanished=counts["vanished"].get(options.name, 0),
        )

    return Facts(
        upstreams=tuple(upstream(options) for options in generation.config.upstreams),
        requests=counts["requests"],
        hits=counts["hits"],
        misses=counts["misses"],
        integrity_failures=counts["integrity_failures"],
        not_stored=sum(count for reason, count in counts["not_stored"].items() if reason != "locked"),
    )
