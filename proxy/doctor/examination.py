"""All the checks, in one list, and how they are made: one after the other, each within its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from proxy.doctor.canary import check_canary
from proxy.doctor.case import Case
from proxy.doctor.containerd import check_containerd
from proxy.doctor.docker import check_docker
from proxy.doctor.findings import Check, Finding, Result, failed
from proxy.doctor.local import check_admin, check_folder, check_listener
from proxy.doctor.podman import check_podman
from proxy.doctor.upstream import UpstreamChecks
from proxy.units import format_duration

_CANARY_SECONDS: Final = 60.0


def checks(case: Case, upstreams: list[UpstreamChecks]) -> list[Check]:
    """What there is to look at, in the order in which a pull goes wrong."""
    return [
        Check("cache folder", partial(check_folder, case)),
        Check("client listener", partial(check_listener, case)),
        Check("admin listener", partial(check_admin, case)),
        *(check for upstream in upstreams for check in upstream.checks()),
        Check("canary pull", partial(check_canary, case), _CANARY_SECONDS),
        Check("dockerd", partial(check_docker, case)),
        Check("containerd", partial(check_containerd, case)),
        Check("podman", partial(check_podman, case)),
    ]


async def examine(case: Case) -> AsyncIterator[Result]:
    """Every result as soon as it is there."""
    upstreams = [UpstreamChecks(options, case.clock) for options in case.config.upstreams]
    async with AsyncExitStack() as closing:
        await closing.enter_async_context(case.cache)
        for upstream in upstreams:
            closing.push_async_callback(upstream.aclose)
        for check in checks(case, upstreams):
            yield Result(check.name, await _within_its_time(check))


async def _within_its_time(check: Check) -> Finding:
    try:
        async with asyncio.timeout(check.seconds):
            return await check.run()
    except TimeoutError:
        return failed(
            f"came to no end within {format_duration(check.seconds)}",
            "Something hangs: a dead network folder, a firewall that drops packets, or an overloaded machine.",
        )
