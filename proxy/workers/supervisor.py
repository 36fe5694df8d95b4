"""The process above all others: it starts them, starts anew what has died, and ends when all have.

It serves nobody and opens nothing after its start, so that there is next to nothing that it could die of. It has no
threads and no event loop: a process that is forked from it begins as from nothing, but with everything imported.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

log = logging.getLogger(__name__)

STEADY_SECONDS: Final = 10.0
"""What has lived for so long is started anew at once."""
PAUSE_SECONDS: Final = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""What dies young has to wait, longer each time."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_READY: Final = b"READY=1"


@dataclass(frozen=True, slots=True)
class Lines:
    """What a process has of its supervisor."""

    notify: socket.socket
    """For what the service manager is to be told (sd_notify(3))."""
    lifeline: int
    """A descriptor that is at its end when the supervisor is."""


Work = Callable[[Lines], int]
"""What a process does, from its birth to its exit code. Told to end by SIGTERM, to read its configuration by SIGHUP,
which is blocked until the process can hear it."""


@dataclass(slots=True)
class _Place:
    """A process, or where one will be."""

    name: str
    work: Work
    pid: int = 0
    started_at: float = 0.0
    due_at: float | None = None
    """When to start it; None: it runs, or is not wanted."""
    died_young: int = 0


class Supervisor:
    """Runs the first of these works and, once that is ready, the others."""

    def __init__(
        self,
        works: Sequence[tuple[str, Work]],
        *,
        died: Callable[[int], None],
        tell: Callable[[bytes], None],
        hung_up: Callable[[], bool],
        stopping: Callable[[], None],
        patience: Callable[[], float],
    ) -> None:
        """`died` is told the number of the work whose process has died, `tell` what is for the service manager.

        `hung_up` is asked at a SIGHUP whether that is the end; `stopping` is called when that has begun, and
        `patience` says how many seconds it may take.
        """
        self._places = [_Place(name, work) for name, work in works]
        self._died = died
        self._tell = tell
        self._hung_up = hung_up
        self._begin_to_stop = stopping
        self._patience = patience
        self._ready = False
        self._kill_at: float | None = None
        self._exit_code = 0

    def run(self) -> int:
        """Until SIGTERM or SIGINT. Returns the exit code: that of the first process if it could not even begin."""
        heard, notify = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        lifeline, lives = os.pipe()
        woken, waker = socket.socketpair()
        with heard, notify, woken, waker, selectors.DefaultSelector() as selector:
            for each in (heard, woken, waker):
                each.setblocking(False)
            self._lines = Lines(notify, lifeline)
            self._own = (heard, woken, waker)
            self._lives = lives
            before = {number: signal.signal(number, _note) for number in _SIGNALS}
            signal.set_wakeup_fd(waker.fileno())
            try:
                selector.register(woken, selectors.EVENT_READ, self._signalled)
                selector.register(heard, selectors.EVENT_READ, self._told)
                self._places[0].due_at = 0.0
                while self._go_on():
                    for key, _ in selector.select(self._pause()):
                        key.data(key.fileobj)
            finally:
                signal.set_wakeup_fd(-1)
                for number, handler in before.items():
                    signal.signal(number, handler)
                os.close(lives)
                os.close(lifeline)
        return self._exit_code

    @property
    def _stopping(self) -> bool:
        return self._kill_at is not None

    def _go_on(self) -> bool:
        """Start what is due; whether anything runs or will."""
        now = time.monotonic()
        for place in self._places:
            if place.due_at is not None and place.due_at <= now:
                self._start(place, now)
            if self._kill_at is not None and place.pid and now >= self._kill_at:
                log.error("%s did not end in time, and is killed", place.name)
                os.kill(place.pid, signal.SIGKILL)
        return any(place.pid or place.due_at is not None for place in self._places)

    def _pause(self) -> float | None:
        times = [place.due_at for place in self._places if place.due_at is not None]
        times += [] if self._kill_at is None else [self._kill_at]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _start(self, place: _Place, now: float) -> None:
        place.due_at, place.started_at = None, now
        sys.stdout.flush()
        sys.stderr.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # One that comes too early would be taken for ours.
        place.pid = os.fork()
        if not place.pid:
            os._exit(self._live(place.work, before))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _live(self, work: Work, mask: set[int | signal.Signals]) -> int:
        """In the new process."""
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # It comes to all from a terminal; the supervisor passes it on.
        signal.pthread_sigmask(signal.SIG_SETMASK, mask | {signal.SIGHUP})
        os.close(self._lives)
        for each in self._own:
            each.close()
        try:
            return work(self._lines)
        except BaseException:
            log.exception("a process of the cache failed")
            return 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    def _told(self, heard: socket.socket) -> None:
        message = heard.recv(4096)
        if message.startswith(_READY) and not self._ready:
            self._ready = True
            for place in self._places[1:]:
                place.due_at = None if self._stopping else 0.0
        self._tell(message)

    def _signalled(self, woken: socket.socket) -> None:
        for number in woken.recv(4096):
            if number == signal.SIGCHLD:
                self._bury()
            elif number != signal.SIGHUP or self._hung_up():
                self._stop()
            else:
                self._pass_on(signal.SIGHUP)

    def _stop(self) -> None:
        if not self._stopping:
            self._kill_at = time.monotonic() + self._patience()
            self._begin_to_stop()
            for place in self._places:
                place.due_at = None
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: signal.Signals) -> None:
        for place in self._places:
            if place.pid:
                os.kill(place.pid, number)

    def _bury(self) -> None:
        """Take note of those that have died."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for number, place in enumerate(self._places):
                if place.pid == pid:
                    place.pid = 0
                    self._ended(number, place, os.waitstatus_to_exitcode(status))

    def _ended(self, number: int, place: _Place, code: int) -> None:
        if self._stopping:
            return
        self._died(number)
        if not self._ready:  # It could not begin, and has said why.
            self._exit_code = code if code > 0 else 1
            return
        lived = time.monotonic() - place.started_at
        place.died_young = 0 if lived >= STEADY_SECONDS else min(place.died_young + 1, len(PAUSE_SECONDS) - 1)
        pause = PAUSE_SECONDS[place.died_young]
        place.due_at = time.monotonic() + pause
        log.error("%s has died (%s) and is started anew%s", place.name, _cause(code), f" in {pause:g} s" * (pause > 0))


def _note(number: int, frame: object) -> None:
    """Signals come by the descriptor; a handler there must be, or they would end the program."""


def _cause(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
