"""What a process took over time, and whether that grew."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from endurance.serving import Serving

INTERVAL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a running cache; `at` in seconds from the first."""

    at: float
    rss: int
    descriptors: int
    threads: int
    tasks: int
    fills: int
    on_disk: int
    """Bytes of all blobs and partials, as their files say."""


async def look(cache: Serving, at: float) -> Sample:
    """One sample. Raises EnduranceError if the cache has ended."""
    footprint = cache.footprint()
    status = await cache.status()
    return Sample(
        at=at,
        rss=footprint.rss,
        descriptors=footprint.descriptors,
        threads=footprint.threads,
        tasks=status["tasks"],
        fills=len(status["fills"]),
        on_disk=await asyncio.to_thread(bytes_on_disk, cache.directory),
    )


def bytes_on_disk(directory: Path) -> int:
    """What blobs and partials take. Blocking."""
    total = 0
    for pattern in ("blobs/*/*/*", "partial/*"):
        for path in directory.glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # Evicted, or given its name, meanwhile.
                total += path.stat().st_size
    return total


@asynccontextmanager
async def sampling(cache: Serving) -> AsyncIterator[list[Sample]]:
    """A look every second, as long as the block runs. What goes wrong in looking is raised at its end."""
    samples: list[Sample] = []
    sampler = asyncio.create_task(_sample(cache, samples))
    try:
        yield samples
    finally:
        ended = sampler.done()
        sampler.cancel()
        await asyncio.gather(sampler, return_exceptions=True)
        if ended:
            sampler.result()


async def _sample(cache: Serving, samples: list[Sample]) -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    while True:
        samples.append(await look(cache, loop.time() - begin))
        await asyncio.sleep(INTERVAL_SECONDS)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much is gained in a second, by least squares; 0.0 for fewer than two points."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def second_half(samples: Sequence[Sample]) -> Sequence[Sample]:
    """When everything has been used once: what still grows then, grows for ever."""
    return samples[len(samples) // 2 :]
