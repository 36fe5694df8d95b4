"""Child processes: started with their log in a file, waited for by state, and never left behind."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]

# A port nobody listens on (tcpmux): every client's way to the real Docker Hub leads there, so that a pull which our
# cache failed can never be saved by the internet. Go never uses a proxy for 127.0.0.1.
NOWHERE = "http://127.0.0.1:1"


class CommandFailed(AssertionError):
    """A client's command failed; the text is the client's own output."""


def clean_environment(home: Path, **extra: str) -> dict[str, str]:
    """Return an environment in which no setting of the person who runs the tests counts."""
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    return {"PATH": path, "HOME": str(home), "LC_ALL": "C", "HTTPS_PROXY": NOWHERE, **extra}


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 120) -> str:
    """Run a command to its end and return what it printed; raise `CommandFailed` with its whole output."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def accepts(port: int) -> bool:
    """Does something listen on this loopback port?"""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(
    is_reached: Callable[[], bool], state: str, *, timeout: float = 30, process: "Process | None" = None
) -> None:
    """Wait for a state; say which one was missed, and stop at once when the process it depends on has ended."""
    deadline = time.monotonic() + timeout
    while not is_reached():
        if process is not None and not process.is_running:
            raise AssertionError(f"{process.name} ended with {process.exit_code} before: {state}\n{process.tail()}")
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {state}" + (f"\n{process.tail()}" if process else ""))
        time.sleep(0.02)


class Process:
    """A running child in a process group of its own, with its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> None:
        self.name = log.stem
        self._log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command,
                env=env,
                cwd=REPOSITORY_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._child.poll()

    def terminate(self, timeout: float = 30) -> int:
        """Send SIGTERM, wait for the end, and return the exit code; kill what does not end in time."""
        self._child.terminate()
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} was still running {timeout:g} s after SIGTERM\n{self.tail()}") from None

    def kill(self) -> None:
        """Send SIGKILL to the whole group and wait for the end."""
        # The group may already be gone; or its leader, while a child of its own lives on.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._child.wait()

    def tail(self, lines: int = 30) -> str:
        """Return the end of the log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_running and error is None:
            self.terminate()
        self.kill()
