"""Work in a thread whose caller is cancelled."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.store.threads import in_thread


def test_a_cancelled_caller_waits_for_the_end_of_the_work_and_its_failure_is_no_news(
    caplog: pytest.LogCaptureFixture,
) -> None:
    started, interrupted, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        interrupted.wait()
        ended.set()
        raise OSError("interrupted")

    async def cancel_the_caller() -> None:
        with ThreadPoolExecutor(1) as executor:
            caller = asyncio.create_task(in_thread(executor, work, interrupted.set))
            await asyncio.to_thread(started.wait)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            assert ended.is_set()

    asyncio.run(cancel_the_caller())
    gc.collect()

    assert caplog.records == []
