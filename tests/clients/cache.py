"""The process under test: `python -m proxy serve` on its own ports and folder, stopped in every way there is."""

import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from ..ports import free_port
from .processes import Process, clean_environment, wait_until
from .upstream import Upstream

_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)", re.MULTILINE)


class Cache:
    """One cache in front of one upstream; the folder and the ports outlive its process."""

    def __init__(
        self,
        directory: Path,
        upstream: Upstream,
        others: Mapping[str, Upstream] | None = None,
        /,
        **settings: dict[str, str | bool],
    ) -> None:
        """`settings` are tables of the configuration, such as `access={"private": "serve"}`.

        `upstream` is docker.io and the default; `others` are those that a client has to name.
        """
        self.port = free_port()
        self._admin_port = free_port()
        self._directory = directory
        self.store = directory / "store"
        tables: dict[str, dict[str, str | bool]] = {
            "server": {"listen": f"127.0.0.1:{self.port}"},
            "admin": {"listen": f"127.0.0.1:{self._admin_port}"},
            "cache": {"directory": str(self.store)},
        }
        for name, table in settings.items():
            tables[name] = tables.get(name, {}) | table
        self._scheme = "https" if "tls_certificate" in tables["server"] else "http"
        lines = [f"[{name}]\n{_toml(table)}" for name, table in tables.items()]
        for name, each in {"docker.io": upstream, **(others or {})}.items():
            registry = {
                "name": name,
                "url": each.url,
                "username": each.username,
                "password_file": str(each.password_file),
            }
            lines.append(f"[[upstream]]\n{_toml(registry)}")
        self._configuration = directory / "pullthrough.toml"
        self._configuration.write_text("\n".join(lines))
        self._process: Process | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def metrics_address(self) -> str:
        """As Prometheus writes a target."""
        return f"127.0.0.1:{self._admin_port}"

    @property
    def process(self) -> Process:
        assert self._process is not None, "the cache is not running"
        return self._process

    def start(self) -> None:
        """Start on the same ports and folder as ever, and wait until it says that it serves."""
        command = [sys.executable, "-m", "proxy", "serve", "--config", str(self._configuration)]
        environment = clean_environment(self._directory, PYTHONWARNINGS="error")
        self._process = Process(command, self._directory / "cache.log", env=environment)
        wait_until(self._is_ready, "the cache is ready", process=self._process)

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        return self.process.terminate()

    def kill(self) -> None:
        """Send SIGKILL, as the kernel does when memory runs out."""
        self.process.kill()

    def restart(self) -> None:
        """Stop in order, and start again."""
        assert self.terminate() == 0, self.process.tail()
        self.start()

    def metrics_text(self) -> str:
        """Return what Prometheus would scrape."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=10) as response:
            return str(response.read().decode())

    def metrics(self, **labels: str) -> dict[str, float]:
        """Return each metric's value, summed over its samples with these labels."""
        values: dict[str, float] = {}
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        for sample in _SAMPLE.finditer(self.metrics_text()):
            if not set(wanted) <= set((sample["labels"] or "").split(",")):
                continue
            values[sample["name"]] = values.get(sample["name"], 0) + float(sample["value"])
        return values

    def peak_memory(self) -> int:
        """Return the most memory the process ever had resident, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))

    def blobs(self) -> list[Path]:
        """Return the files of the store that are said to be whole."""
        return [file for file in (self.store / "blobs").rglob("*") if file.is_file()]

    def partial_size(self, digest: str) -> int:
        """Return how much of a blob that is not yet whole is on disk."""
        try:
            return (self.store / "partial" / digest.replace(":", "-")).stat().st_size
        except FileNotFoundError:
            return 0

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.metrics_address}/readyz", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _toml(table: dict[str, str | bool] | dict[str, str]) -> str:
    # JSON's strings and booleans are TOML's too.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
