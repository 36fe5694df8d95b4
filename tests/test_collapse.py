"""Concurrent requests for one thing share one fetch (RFC 9111 section 4)."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import pytest

from proxy.collapse import Collapser
from tests.eventually import eventually


class Work:
    """Something slow that counts how often it was started, and ends when the test says so."""

    def __init__(self) -> None:
        self.started: Counter[str] = Counter()
        self.ended: list[str] = []
        self.failure: Exception | None = None
        self.finish = asyncio.Event()

    async def __call__(self, key: str) -> str:
        self.started[key] += 1
        try:
            await self.finish.wait()
            if self.failure is not None:
                raise self.failure
            return f"outcome of {key}"
        finally:
            self.ended.append(key)


def callers(collapser: Collapser[str, str], work: Work, key: str, count: int) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(collapser.run(key, lambda: work(key))) for _ in range(count)]


async def test_callers_of_one_key_share_one_run_and_its_outcome() -> None:
    collapser, work = Collapser[str, str](), Work()
    calls = callers(collapser, work, "a", 20) + callers(collapser, work, "b", 1)
    await eventually(lambda: len(work.started) == 2)

    work.finish.set()
    outcomes = await asyncio.gather(*calls)

    assert outcomes == ["outcome of a"] * 20 + ["outcome of b"]
    assert work.started == {"a": 1, "b": 1}


async def test_a_failure_reaches_every_caller_and_is_not_kept() -> None:
    collapser, work = Collapser[str, str](), Work()
    work.failure = LookupError("no")
    calls = callers(collapser, work, "a", 5)
    await eventually(lambda: work.started["a"])

    work.finish.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    await eventually(lambda: "a" not in collapser)

    assert [type(outcome) for outcome in outcomes] == [LookupError] * 5
    work.failure = None
    assert await collapser.run("a", lambda: work("a")) == "outcome of a"


async def test_a_caller_that_leaves_changes_nothing_for_the_others() -> None:
    collapser, work = Collapser[str, str](), Work()
    first, second = callers(collapser, work, "a", 2)
    await eventually(lambda: work.started["a"])

    first.cancel()
    await asyncio.wait([first])
    work.finish.set()

    assert first.cancelled()
    assert await second == "outcome of a"


@pytest.mark.parametrize("failure", [None, LookupError("nobody hears this")])
async def test_work_goes_on_to_its_end_when_all_have_left(failure: Exception | None) -> None:
    collapser, work = Collapser[str, str](), Work()
    work.failure = failure
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    calls = callers(collapser, work, "a", 2)
    await eventually(lambda: work.started["a"])

    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert "a" in collapser
    work.finish.set()

    await eventually(lambda: "a" not in collapser)
    del call, calls  # They know the work, which complains when it is forgotten unheard.
    gc.collect()
    assert work.ended == ["a"]
    assert complaints == []


async def test_closing_cancels_what_runs_and_waits_for_it() -> None:
    collapser, work = Collapser[str, str](), Work()
    (call,) = callers(collapser, work, "a", 1)
    await eventually(lambda: work.started["a"])

    await collapser.aclose()

    assert work.ended == ["a"]
    await asyncio.wait([call])
    assert call.cancelled()
