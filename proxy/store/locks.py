"""The locks of a cache folder, for processes that share it: the old one and the new one of a restart without a gap.

    lock          shared by every process that uses the folder; had exclusively only by one that is alone there
    keeper.lock   held by the one process that keeps the folder in order: makes room, and reads what is stored again

The kernel gives both back when a process dies, however it dies. Each fill locks its partial file besides.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import time
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, TextIO

from proxy.store.threads import in_thread

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 10.0
"""How long one that starts waits for another that is cleaning the folder before it serves."""
RETRY_SECONDS: Final = 2.0

_PAUSE_SECONDS: Final = 0.05


class FolderLock:
    """Held, shared, for as long as a process uses the folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def acquire(self, patience: float = PATIENCE_SECONDS) -> bool:
        """Take the lock; whether it is exclusive: nobody else uses the folder. Blocking. Raises OSError.

        Exclusive, it keeps those out that start meanwhile; `share` lets them in.
        """
        self._file = self._path.open("a")
        deadline = time.monotonic() + patience
        while True:
            for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                if _try(self._file, kind):
                    return kind == fcntl.LOCK_EX
            if time.monotonic() >= deadline:
                raise OSError("another program uses it, and shares it with nobody")
            time.sleep(_PAUSE_SECONDS)

    def share(self) -> None:
        """Let others use the folder too. Blocking: one that comes in between may clean it first."""
        assert self._file is not None
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            self._file.close()
            self._file = None


class KeeperLock:
    """Makes this process the keeper of the folder as soon as no other is."""

    def __init__(self, path: Path, executor: Executor, retry: float = RETRY_SECONDS) -> None:
        self._path = path
        self._executor = executor
        self._retry = retry
        self._file: TextIO | None = None
        self._held = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def held(self) -> bool:
        """Whether this process is the keeper. Once it is, it stays it to its end."""
        return self._held.is_set()

    async def wait(self) -> None:
        """Return once this process is the keeper."""
        await self._held.wait()

    async def start(self) -> None:
        """Try at once, and then again and again in the background. Raises OSError if there can be no such file."""
        self._file = await in_thread(self._executor, lambda: self._path.open("a"))
        if not self._try():
            log.info("another process keeps the cache folder in order; this one does once that has ended")
            self._task = asyncio.get_running_loop().create_task(self._wait_for_it(), name="keeper lock")

    async def aclose(self) -> None:
        """Give it back, or stop trying."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._file is not None:
            self._file.close()

    async def _wait_for_it(self) -> None:
        while True:
            await asyncio.sleep(self._retry)
            if self._try():
                break
        log.info("this process keeps the cache folder in order now")

    def _try(self) -> bool:
        """A call that the kernel answers at once."""
        assert self._file is not None
        if _try(self._file, fcntl.LOCK_EX):
            self._held.set()
        return self.held


def _try(file: TextIO, kind: int) -> bool:
    """Whether the lock could be had. Raises OSError where files cannot be locked."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
