"""A soak: clients of all kinds for a long time, an upstream that fails now and then, tags that move, a cache that is
full all the while. Afterwards nothing may have grown that has no reason to, and no byte may have been wrong.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from endurance.clients import Crowd, Findings
from endurance.goods import KIB, MIB, Goods, mixed_sizes, wrong_blobs
from endurance.kill_loop import crowding
from endurance.probe import Waits, probing
from endurance.samples import Sample, look, sampling, second_half, slope
from endurance.serving import Serving, serving
from endurance.troubles import trouble_now_and_then
from tests.fake_hub import FakeHub, spoilt

_PACE: Final = spoilt.drip(256 * KIB, 0.01)
_QUIET_WITHIN: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How long a soak it is. Bytes; seconds."""

    seconds: float
    clients: int = 24
    blobs: int = 60
    largest: int = 16 * MIB
    max_size: int = 128 * MIB
    growth: int = 2 * MIB
    """What memory may gain in a minute of the second half, by least squares."""


SHORT: Final = Form(seconds=20, clients=10, blobs=24, largest=4 * MIB, max_size=24 * MIB, growth=60 * MIB)
"""In seconds nothing can be said of growth: memory that is used for the first time looks the same."""
LONG: Final = Form(seconds=15 * 60 + 30)


@dataclass
class Outcome:
    """What came of it."""

    form: Form
    findings: Findings = field(default_factory=Findings)
    troubles: Counter[str] = field(default_factory=Counter)
    moves: int = 0
    samples: list[Sample] = field(default_factory=list)
    waits: Waits = field(default_factory=Waits)
    fresh: Sample | None = None
    """Before any client came."""
    quiet: Sample | None = None
    """When all had left."""
    wrong_blobs: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Bytes of memory gained in a minute, over the second half."""
        return slope([(each.at, each.rss) for each in second_half(self.samples)]) * 60

    @property
    def failures(self) -> list[str]:
        """What must not be."""
        found = [*self.findings.wrong, *(f"wrong on disk: {name}" for name in self.wrong_blobs), *self.stuck]
        found += [f"logged: {line}" for line in self.complaints]
        if self.growth > self.form.growth:
            found.append(f"memory grows by {self.growth / MIB:.1f} MiB a minute")
        if (most := max((each.on_disk for each in self.samples), default=0)) > self.form.max_size:
            found.append(f"{most} bytes were on disk, max_size is {self.form.max_size}")
        if self.fresh and self.quiet:
            leaked = self.quiet.tasks - self.fresh.tasks
            opened = self.quiet.descriptors - self.fresh.descriptors
            found += [f"{leaked} tasks are left"] if leaked > 0 else []
            found += [f"{opened} descriptors are left"] if opened > 0 else []
        return found

    def rows(self) -> list[tuple[str, str]]:
        """The figures, for a table."""
        late, found, fresh, quiet = second_half(self.samples), self.findings, self.fresh, self.quiet
        if not (late and fresh and quiet):
            return [("it did not come to its end", str(found))]
        rss = [each.rss / MIB for each in late]
        descriptors = [each.descriptors for each in late]
        return [
            ("seconds; clients", f"{self.form.seconds:.0f}; {self.form.clients}"),
            ("troubles upstream; tags moved", f"{self.troubles.total()}; {self.moves}"),
            ("answers", ", ".join(f"{count} x {status}" for status, count in sorted(found.answers.items()))),
            ("bodies complete; broken off; left by the client", f"{found.complete}; {found.broken}; {found.left}"),
            ("bytes that clients compared with the right ones", f"{found.right_bytes / MIB:,.0f} MiB"),
            (
                "wrong bytes in what arrived whole or was stored",
                str(sum("wrong bytes" in text for text in found.wrong)),
            ),
            ("answers with upstream's wrong bytes, broken off or ranges of a running fill", str(found.lied_to)),
            (
                "on disk at most; max_size",
                f"{max(each.on_disk for each in self.samples) / MIB:.0f}; {self.form.max_size / MIB:.0f} MiB",
            ),
            (
                "memory, second half: least; most; gain in a minute",
                f"{min(rss):.0f}; {max(rss):.0f} MiB; {self.growth / MIB:+.2f} MiB",
            ),
            (
                "descriptors: at first; second half, most; at the end",
                f"{fresh.descriptors}; {max(descriptors)}; {quiet.descriptors}",
            ),
            (
                "tasks: at first; most; at the end",
                f"{fresh.tasks}; {max(each.tasks for each in self.samples)}; {quiet.tasks}",
            ),
            ("threads: at first; most", f"{fresh.threads}; {max(each.threads for each in self.samples)}"),
            ("a small request beside all that", str(self.waits)),
            ("tracebacks in the log", str(len(self.complaints))),
        ]


class Soak:
    """One soak on one folder, which is empty at first. `say` is told how it goes."""

    def __init__(self, folder: Path, form: Form, seed: int, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._form = form
        self._rng = random.Random(seed)
        self._say = say
        self.outcome = Outcome(form)

    async def run(self) -> Outcome:
        """All of it. Raises EnduranceError when it cannot go on."""
        async with FakeHub(rate_limit=None) as hub:
            sizes = mixed_sizes(self._form.blobs, self._form.largest, self._rng)
            goods = Goods(hub, sizes, max(4, self._form.blobs // 4), self._rng)
            hub.change("cdn", _PACE, content_only=True)
            async with serving(self._folder, hub.url, self._sections()) as cache:
                crowd = Crowd(goods, lambda: cache.url, self._rng, upstream_lies=True)
                self.outcome.findings = crowd.findings
                await self._warm_up(cache, crowd)
                await self._soak(hub, goods, cache, crowd)
                await self._quiet(cache)
                await cache.stop()
                self.outcome.wrong_blobs = await asyncio.to_thread(wrong_blobs, cache.directory)
                self.outcome.complaints = cache.complaints()
        return self.outcome

    def _sections(self) -> dict[str, dict[str, object]]:
        return {
            "cache": {"max_size": self._form.max_size, "grace": "0s", "memory": "8MiB"},
            "freshness": {"tags": "2s"},
            "upstream": {"idle_timeout": "2s", "connect_timeout": "2s"},
        }

    async def _warm_up(self, cache: Serving, crowd: Crowd) -> None:
        """Everything once, so that what is opened once is open; then the first look."""
        await crowd.pull_everything()
        self.outcome.fresh = await self._look_when_idle(cache)

    async def _soak(self, hub: FakeHub, goods: Goods, cache: Serving, crowd: Crowd) -> None:
        async with (
            sampling(cache) as self.outcome.samples,
            probing(f"{cache.url}/v2/") as self.outcome.waits,
            crowding(crowd, self._form.clients),
        ):
            moving = asyncio.create_task(self._move_tags(hub, goods))
            try:
                self.outcome.troubles = await trouble_now_and_then(hub, self._rng, self._form.seconds, _PACE)
            finally:
                moving.cancel()
                await asyncio.gather(moving, return_exceptions=True)

    async def _move_tags(self, hub: FakeHub, goods: Goods) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(0.2, 2.0))
            goods.move(self._rng.choice(goods.tags))
            self.outcome.moves += 1
            hub.reset_counts()  # The hub remembers every request, and we no longer need them.
            if self.outcome.moves % 60 == 0:
                self._say(f"{len(self.outcome.samples)} s: {self.outcome.findings}")

    async def _quiet(self, cache: Serving) -> None:
        """All clients have left: what runs has to end."""
        try:
            self.outcome.quiet = await self._look_when_idle(cache)
        except TimeoutError:
            self.outcome.quiet = await look(cache, self._form.seconds)
            self.outcome.stuck.append(f"not at rest after {_QUIET_WITHIN:g} s: {self.outcome.quiet}")

    async def _look_when_idle(self, cache: Serving) -> Sample:
        """A look once no fill runs and nothing changes any more. Raises TimeoutError."""
        async with asyncio.timeout(_QUIET_WITHIN):
            before = await look(cache, 0)
            while True:
                await asyncio.sleep(0.5)
                now = await look(cache, 0)
                settled = (now.descriptors, now.tasks) == (before.descriptors, before.tasks)
                if settled and not now.fills and self._is_back(now):
                    return now
                before = now

    def _is_back(self, now: Sample) -> bool:
        """Whether no more is open than at first: a closing connection takes its time."""
        fresh = self.outcome.fresh
        return fresh is None or (now.descriptors <= fresh.descriptors and now.tasks <= fresh.tasks)
