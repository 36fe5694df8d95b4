"""Where a blob's bytes come from, as the store sees it, and how often it is asked again when they stop coming."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from proxy.oci.errors import Unavailable
from proxy.store.fills.transfer import RawBody

log = logging.getLogger(__name__)

MAX_IDLE_ATTEMPTS: Final = 5
"""Attempts in a row that bring next to nothing, after which it is given up: about 6 s if each fails at once."""
WORTHWHILE_BYTES: Final = 64 * 1024
"""An attempt that brought this much was a good one."""
FIRST_PAUSE_SECONDS: Final = 0.2

_MAX_PAUSE_SECONDS: Final = 5.0


class Body(Protocol):
    """Upstream's answer for a blob, from byte `start` on; `size` is the whole blob's, in bytes, if upstream says it."""

    @property
    def size(self) -> int | None: ...

    @property
    def start(self) -> int: ...

    async def read(self) -> bytes:
        """What has arrived; empty at the end. Raises RegistryError when the transfer breaks."""

    def detach(self) -> RawBody | None:
        """The rest of the body for a thread to receive, if that can be; then `read` is not called any more."""

    def parts(self) -> Parts | None:
        """More of the blob, over further connections, if upstream and the configuration allow that."""

    def close(self) -> None:
        """Stop here."""


class Parts(Protocol):
    """Parts of one blob, each over a connection of its own."""

    @property
    def most(self) -> int:
        """The most connections that may be used for the blob."""

    @property
    def refused(self) -> bool:
        """Whether upstream has shown that it does not take several; it is not asked again for a while."""

    def welcome(self) -> bool:
        """Whether one more connection may be made now, in all politeness."""

    def open(self, start: int, stop: int, *, further: bool) -> AbstractAsyncContextManager[Body]:
        """The bytes from `start` to `stop`; `further` connections count as transfers of their own. Entering it raises
        RegistryError, and never gives anything else than these bytes."""


Source = Callable[[int], AbstractAsyncContextManager[Body]]
"""Opens a blob upstream from an offset on. Entering it raises RegistryError."""


class WrongContent(Unavailable):
    """What upstream sent does not have the digest that was asked for."""


class Attempts:
    """Counts the attempts at one blob, and says when to give up."""

    def __init__(self) -> None:
        self._idle = 0

    @property
    def is_last(self) -> bool:
        """Whether the attempt that runs is the last one, unless it brings something."""
        return self._idle >= MAX_IDLE_ATTEMPTS

    def failed(self, what: object, error: Unavailable, brought: int) -> float:
        """Seconds to wait before asking again, after an attempt that brought so many bytes; or raises the error."""
        self._idle = 1 if brought >= WORTHWHILE_BYTES else self._idle + 1
        if self._idle > MAX_IDLE_ATTEMPTS:
            raise error
        pause: float = min(_MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (self._idle - 1)) * random.uniform(0.7, 1.0)
        log.info("%s broke (%s): again in %.1f s", what, error.message, pause)
        return pause
