"""The document of /api/status."""

from __future__ import annotations

import asyncio
import os

from proxy import __version__
from proxy.app.generation import Generation
from proxy.app.store import Store
from proxy.config import UpstreamOptions
from proxy.metrics import Metrics
from proxy.policy.quota import Gate
from proxy.quota.report import Report
from proxy.store.fills.fill import Fill
from proxy.upstream.client import Upstream


def status_document(
    store: Store, generation: Generation, report: Report, metrics: Metrics, now: float, started_at: float
) -> dict[str, object]:
    """How the cache is; times by the monotonic clock."""
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime_seconds": round(now - started_at, 3),
        "listen": str(generation.config.server.listen),
        "cache": _cache(store),
        "counters": metrics.snapshot(),
        "upstreams": [
            _upstream(options, generation.upstreams[options.name], now)
            | {"budget": report.brief(generation.upstreams[options.name].account)}
            for options in generation.config.upstreams
        ],
        "fills": [_fill(each) for each in store.fills],
        "tasks": len(asyncio.all_tasks()),
    }


def _cache(store: Store) -> dict[str, object]:
    sample, room = store.sample(), store.room.sample()
    return {
        "directory": str(store.directory),
        "blobs": sample.blobs,
        "bytes": sample.bytes,
        "memory_bytes": sample.memory_bytes,
        "max_bytes": room.max_bytes,
        "free_bytes": room.free_bytes,
        "partial_bytes": room.leftover_bytes,
        "keeper": store.keeper_lock.held,
    }


def _fill(fill: Fill) -> dict[str, object]:
    return {
        "digest": str(fill.digest),
        "repository": str(fill.repository),
        "received": fill.progress.received,
        "size": fill.progress.size,
        "readers": fill.readers,
        "seconds": round(fill.seconds, 3),
    }


def _upstream(options: UpstreamOptions, upstream: Upstream, now: float) -> dict[str, object]:
    quota = upstream.limits.quota
    return {
        "name": options.name,
        "url": options.url,
        "account": options.username,
        "credentials": upstream.credentials_state(),
        "quota": quota
        and {
            "limit": quota.limit,
            "remaining": quota.remaining,
            "window_seconds": quota.window,
            "observed_seconds_ago": round(now - quota.observed_at, 3),
        },
        "pulls_closed_seconds": upstream.limits.closed_for(Gate.PULLS, now),
        "requests_closed_seconds": upstream.limits.closed_for(Gate.REQUESTS, now),
        "breaker_open_seconds": upstream.breaker_open_for(),
    }
