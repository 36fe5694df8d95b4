"""`python -m proxy serve` as a process of its own: started, asked, measured, killed, and never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from endurance.errors import EnduranceError

ROOT: Final = Path(__file__).parent.parent
START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 60.0

_GREETING: Final = re.compile(r"clients: (http://\S+?)\"?\s+metrics and status: (http://[^\s\"]+)")
_FOREIGN: Final = ("PULLTHROUGH_", "DOCKERHUB_", "REGISTRY_")
"""Settings of whoever runs this; the cache is configured by its file alone."""

Sections = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the kernel says of a process."""

    rss: int
    """Bytes."""
    descriptors: int
    threads: int
    cpu: float
    """Seconds, of the user and of the system."""


class Serving:
    """One cache on one folder, which may be started again after its end. `folder` gets its settings and log too."""

    def __init__(self, folder: Path, upstream: str, sections: Sections | None = None) -> None:
        self.directory = folder / "cache"
        self.log = folder / "cache.log"
        self.url = self.admin_url = ""
        self._settings = folder / "cache.toml"
        self._upstream = upstream
        self._process: asyncio.subprocess.Process | None = None
        self.configure(sections or {})

    def configure(self, sections: Sections) -> None:
        """Write the settings: these besides what we need ourselves. They count from the next start, or SIGHUP."""
        ours: dict[str, dict[str, object]] = {
            "server": {"listen": "127.0.0.1:0"},
            "admin": {"listen": "127.0.0.1:0"},
            "cache": {"directory": str(self.directory)},
            "log": {"format": "json", "access": False},
        }
        upstream: dict[str, object] = {"name": "docker.io", "url": self._upstream}
        for name, settings in sections.items():
            (upstream if name == "upstream" else ours.setdefault(name, {})).update(settings)
        tables = [(f"[{name}]", settings) for name, settings in ours.items()] + [("[[upstream]]", upstream)]
        lines = (
            f"{head}\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
            for head, table in tables
        )
        self._settings.write_text("\n".join(lines))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def launch(self) -> int:
        """Start the process; where its log will go on, in bytes. Does not wait."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        command = (sys.executable, "-W", "error", "-m", "proxy", "serve", "--config", str(self._settings))
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        return begin

    async def start(self) -> None:
        """Start the process and wait until it listens. Raises EnduranceError with its last words if it does not."""
        begin = await self.launch()
        async with asyncio.timeout(START_SECONDS):
            while (found := _GREETING.search(self.log_text(begin))) is None:
                if not self.runs:
                    raise EnduranceError(f"the cache did not start: {self.log_text(begin).strip()[-500:]}")
                await asyncio.sleep(0.005)
        self.url, self.admin_url = found[1], found[2]

    async def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._process is not None and self.runs:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM, and the exit code. Raises EnduranceError if it does not end."""
        assert self._process is not None
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for the end, and the exit code. Raises EnduranceError if it does not end."""
        assert self._process is not None
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            raise EnduranceError(f"the cache still runs {STOP_SECONDS:g} s after SIGTERM") from None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to a process that runs."""
        if self._process is not None and self.runs:
            self._process.send_signal(number)

    async def status(self) -> dict[str, Any]:
        """The document of /api/status."""
        async with _session() as session, session.get(f"{self.admin_url}/api/status") as response:
            document: dict[str, Any] = await response.json()
        return document

    async def metrics(self) -> str:
        """The text of /metrics."""
        async with _session() as session, session.get(f"{self.admin_url}/metrics") as response:
            return await response.text()

    async def command(self, *words: str) -> tuple[int, str]:
        """Run another command of the program with the same settings: its exit code and what it said."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        environment["PULLTHROUGH_ADMIN__LISTEN"] = self.admin_url.removeprefix("http://")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", *words, "--config", str(self._settings)),
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode(errors="replace")

    def footprint(self) -> Footprint:
        """What the process takes now. Raises EnduranceError if it has ended."""
        folder = Path(f"/proc/{self.pid}")
        try:
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            times = (folder / "stat").read_text().rpartition(")")[2].split()
            descriptors = len(os.listdir(folder / "fd"))
        except (OSError, ValueError):
            raise EnduranceError(f"the cache has ended: {self.log_text().strip()[-500:]}") from None
        rss = int(status["VmRSS"].split()[0]) * 1024
        cpu = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
        return Footprint(rss, descriptors, int(status["Threads"]), cpu)

    def log_text(self, begin: int = 0) -> str:
        """What the process has logged from this byte on."""
        with self.log.open("rb") as file:
            file.seek(begin)
            return file.read().decode(errors="replace")

    def complaints(self) -> list[str]:
        """The lines of the log that should not be there: tracebacks, defects, and what no formatter wrote."""
        return [line for line in self.log_text().splitlines() if line and _is_complaint(line)]


@asynccontextmanager
async def serving(folder: Path, upstream: str, sections: Sections | None = None) -> AsyncIterator[Serving]:
    """A cache that runs, until the block ends."""
    cache = Serving(folder, upstream, sections)
    try:
        await cache.start()
        yield cache
    finally:
        await cache.kill()


def _is_complaint(line: str) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return True
    return "traceback" in entry or entry.get("level") == "critical" or "should not happen" in entry.get("message", "")


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
