"""The generations of the configuration: the one that answers, and those that end what they have begun."""

from __future__ import annotations

import asyncio
import logging

from proxy.app.generation import Generation, Shared
from proxy.config import Config

log = logging.getLogger(__name__)


class Generations:
    """From `start` on there is a current one; `replace` makes another. `finish`, then `aclose`."""

    def __init__(self, config: Config, shared: Shared) -> None:
        self._config = config
        self._shared = shared
        self._current: Generation | None = None
        self._retiring: dict[Generation, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def current(self) -> Generation:
        """The one that answers; from `start` on."""
        assert self._current is not None
        return self._current

    async def start(self) -> None:
        """Make the first one. Raises StartError."""
        self._current = await Generation.begin(self._config, self._shared)

    async def replace(self, config: Config) -> None:
        """Answer by this configuration from now on. Raises StartError, and all stays as it was."""
        following = await Generation.begin(config, self._shared)
        old, self._current = self.current, following
        self._shared.negatives.clear()  # Perhaps the new configuration was made because of one of them.
        self._retiring[old] = task = asyncio.get_running_loop().create_task(self._retire(old), name="retire")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait for all requests that are being answered, and end each connection with its next answer."""
        await asyncio.gather(*(each.routes.drain() for each in self._all()))

    async def finish(self) -> None:
        """Stop whatever is asked upstream."""
        for task in self._retiring.values():
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in self._all():
            await each.finish()
        await self._shared.aclose()

    async def aclose(self) -> None:
        """Close the connections to upstreams."""
        for each in self._all():
            await each.aclose()

    def _all(self) -> list[Generation]:
        return [*self._retiring, *([self._current] if self._current else [])]

    async def _retire(self, old: Generation) -> None:
        """Let an old one end in peace: its requests, what they ask upstream, and the fills that they began."""
        await old.routes.idle()
        await self._shared.settled()
        del self._retiring[old]  # From here on nobody cancels this.
        try:
            await old.finish()
            await old.aclose()
        except Exception:
            log.exception("what an earlier configuration left could not be closed")
