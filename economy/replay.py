"""One day with several rivals side by side, each against an upstream of its own: tags move, it goes away, jobs pull."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from economy.clients import Host, PullError, Runner
from economy.findings import Findings, Outcome, Sample
from economy.goods import Goods
from economy.pace import HOUR, MINUTE, Pace, clock_text
from economy.processes import serving
from economy.rivals import Rival, Site
from economy.workload import WINDOW, Day, Job
from tests.fake_hub import ANONYMOUS, FakeHub
from tests.ports import free_port

Say = Callable[[str], None]
SAMPLE: Final = MINUTE
"""So often it is looked at what is left."""


async def replay(
    day: Day, rivals: Sequence[Rival], limit: int, factor: float, folder: Path, say: Say
) -> list[Findings]:
    """The day, with so many pulls in a window. Raises EconomyError."""
    pace = Pace(factor)
    async with AsyncExitStack() as ending:
        stages = [_Stage(day, rival, limit, pace, folder / str(number)) for number, rival in enumerate(rivals)]
        for stage in stages:
            await ending.enter_async_context(stage)
        pace.midnight()
        telling = asyncio.create_task(_tell(day, stages, pace, say))
        ending.callback(telling.cancel)
        async with asyncio.TaskGroup() as group:
            for stage in stages:
                group.create_task(stage.run())
        for stage in stages:
            await stage.conclude()
    return [stage.findings for stage in stages]


async def _tell(day: Day, stages: Sequence[_Stage], pace: Pace, say: Say) -> None:
    """Every hour of the day, how it goes."""
    for hour in range(1, round(day.form.hours) + 1):
        await pace.until(hour * HOUR)
        counts = ", ".join(f"{each.findings.rival} {each.hub.counted_pulls}" for each in stages)
        say(f"{clock_text(pace.now)}: pulls counted: {counts}")


class _Stage:
    """One rival and its upstream; an async context manager."""

    def __init__(self, day: Day, rival: Rival, limit: int, pace: Pace, folder: Path) -> None:
        self.hub = FakeHub(rate_limit=(limit, round(WINDOW)))
        self.hub.rolls = pace.time
        self.hub.identity_only = False
        self.findings = Findings(rival.name, limit)
        self._day = day
        self._rival = rival
        self._pace = pace
        self._folder = folder
        self._goods = Goods(self.hub, day)
        self._hosts: list[Host] = []
        self._running = 0
        self._admin = ""
        self._ending = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as starting:
            await starting.enter_async_context(self.hub)
            upstream = Host(self.hub.url, is_mirror=False)
            if self._rival.command is None:
                self._hosts = [upstream]
            else:
                await asyncio.to_thread(self._folder.mkdir)
                site = Site(self._folder, free_port(), free_port(), self.hub.url, self._pace)
                command = await asyncio.to_thread(self._rival.command, site)
                await starting.enter_async_context(serving(command, site.port, self._folder / "output.log"))
                self._admin = f"http://127.0.0.1:{site.admin}"
                mirror = Host(f"http://127.0.0.1:{site.port}", is_mirror=True)
                self._hosts = [mirror] if self._rival.only else [mirror, upstream]
            await self._greet()
            self._ending = starting.pop_all()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._ending.aclose()

    async def _greet(self) -> None:
        """One request that costs nothing: nobody's first pull is to wait for what a program does at its first."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._hosts[0].url}/v2/") as response:
            await response.read()

    async def run(self) -> None:
        """The whole day."""
        async with asyncio.TaskGroup() as group:
            moving, going = group.create_task(self._move_tags()), group.create_task(self._go_away())
            looking = group.create_task(self._look())
            for job in self._day.jobs:
                await self._pace.until(job.at)
                group.create_task(self._do(job))
            await self._pace.until(self._day.seconds)
            await asyncio.gather(moving, going)
            looking.cancel()

    async def conclude(self) -> None:
        """What upstream has counted, once nobody asks any more."""
        found = self.findings
        found.counted = self.hub.counted_pulls
        found.bytes_upstream = sum(each.sent for each in self.hub.requests)
        found.outcomes.sort(key=lambda each: each.job.number)
        if self._rival.ours:
            async with aiohttp.ClientSession() as session, session.get(f"{self._admin}/api/quota") as response:
                (upstream,) = (await response.json())["upstreams"]
            found.decisions = upstream["decisions"]

    async def _move_tags(self) -> None:
        for move in self._day.moves:
            await self._pace.until(move.at)
            self._goods.move(move.image, move.version)

    async def _go_away(self) -> None:
        begin, end = self._day.outage
        await self._pace.until(begin)
        await self.hub.gone()
        await self._pace.until(end)
        await self.hub.back()

    async def _look(self) -> None:
        """Once a minute."""
        while True:
            left = self.hub.remaining(ANONYMOUS)
            assert left is not None
            self.findings.samples.append(Sample(self._pace.now, left, self.hub.counted_pulls, self._running))
            await self._pace.until((self._pace.now // SAMPLE + 1) * SAMPLE)

    async def _do(self, job: Job) -> None:
        outcome = Outcome(job, self._pace.now)
        self._running += 1
        try:
            await Runner(job, self._hosts, self._goods, self.findings, outcome).run()
        except PullError as error:
            outcome.failed = str(error)
        finally:
            self._running -= 1
        outcome.ended = self._pace.now
        self.findings.outcomes.append(outcome)
