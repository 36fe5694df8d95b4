"""Fetching the rest of a large blob over several connections, where one is slow (PERFORMANCE 10).

Never more of them in the whole program than `limit`, so that memory is bounded, and only with room on disk to spare.
The first connection goes on until another has shown that upstream gives ranges; if none does, it just goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from proxy.metrics import Metrics
from proxy.store.fills.partial import Partial
from proxy.store.fills.scratch import Scratch, ScratchFailed
from proxy.store.fills.segments import HEADSTART_BYTES, SEGMENT_BYTES, Queue, Segments
from proxy.store.fills.source import Parts
from proxy.store.room import Claims
from proxy.store.threads import in_thread

log = logging.getLogger(__name__)

WORTHWHILE_BYTES: Final = 32 * 1024 * 1024
"""What has to be left of a blob."""

_MORE_SLOTS: Final = 2
"""So that connections which are faster than others do not wait for those."""


class SeveralConnections:
    """Gives further connections to fills; `folder` is where scratch files are made."""

    def __init__(self, folder: Path, claims: Claims, executor: Executor, metrics: Metrics, limit: int) -> None:
        self._folder = folder
        self._claims = claims
        self._executor = executor
        self._metrics = metrics
        self._free = limit

    @asynccontextmanager
    async def of(self, parts: Parts, target: Partial, size: int, rate: float) -> AsyncIterator[Segments | None]:
        """The rest of a blob of this size over several connections, which end with the block; None if there cannot be
        more than one. `rate` is what the first brings, in bytes a second."""
        further = min(parts.most - 1, self._free)
        if further < 1 or not parts.welcome():
            yield None
            return
        self._free -= further
        slots = parts.most + _MORE_SLOTS
        claim = None
        try:
            claim = await self._claims.spare(slots * SEGMENT_BYTES)
            scratch = None if claim is None else await self._scratch()
            if scratch is None:
                yield None
                return
            queue = Queue(target.length + HEADSTART_BYTES, size, slots)
            segments = Segments(queue, parts, target, scratch, self._executor, rate)
            try:
                for _ in range(further):
                    segments.connect(further=True)
                yield segments
            finally:
                await segments.aclose()
                self._metrics.segmented(_outcome(segments, whole=target.length == size))
                await in_thread(self._executor, scratch.close)
        finally:
            if claim is not None:
                claim.release()
            self._free += further

    async def _scratch(self) -> Scratch | None:
        making = asyncio.get_running_loop().run_in_executor(self._executor, Scratch, self._folder)
        try:
            return await asyncio.shield(making)
        except ScratchFailed as error:
            log.warning("one connection has to do: %s", error.message)
            return None
        except asyncio.CancelledError:
            making.add_done_callback(lambda made: None if made.exception() else made.result().close())
            raise


def _outcome(segments: Segments, *, whole: bool) -> str:
    if not segments.begun:
        return "refused"
    return "whole" if whole else "broken"
