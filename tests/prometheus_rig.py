"""A real Prometheus beside a real process of ours, both in a hurry: what takes it minutes takes seconds here."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.eventually import eventually
from tests.ports import free_port
from tests.programs import require_program

RULES: Final = Path(__file__).parent.parent / "config" / "prometheus" / "pullthrough.rules.yml"
SCRAPE_MILLISECONDS: Final = 500
WINDOW_SECONDS: Final = 4
"""What every range in the hurried rules is; a cause that has ended is forgotten after so long."""

Labels = dict[str, str]


@dataclass
class Prometheus:
    """Answers queries."""

    url: str
    session: aiohttp.ClientSession
    fired: set[str] = field(default_factory=set)
    """The alerts that were waited for, and fired."""

    async def query(self, expression: str) -> list[tuple[Labels, float]]:
        """The series of an instant query now, and their values. Fails, with Prometheus' words, if it is no query."""
        document = await self.get("query", query=expression)
        if document["resultType"] == "scalar":
            return [({}, float(document["result"][1]))]
        return [(series["metric"], float(series["value"][1])) for series in document["result"]]

    async def label_values(self, label: str, selector: str) -> list[str]:
        """The values of a label of these series."""
        values: list[str] = await self.get(f"label/{label}/values", **{"match[]": selector})
        return values

    async def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts = (await self.get("alerts"))["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    async def fires(self, *names: str) -> None:
        """Wait until these alerts do, among others."""
        await self._reached(lambda firing: firing >= set(names), f"{', '.join(names)} fire")
        self.fired |= set(names)

    async def resolves(self, *names: str) -> None:
        """Wait until none of these alerts fires."""
        await self._reached(lambda firing: firing.isdisjoint(names), f"none of {', '.join(names)} fires")

    async def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of the API."""
        async with self.session.get(f"{self.url}/api/v1/{path}", params=parameters) as response:
            document = await response.json()
        assert document["status"] == "success", f"{document['error']}: {parameters}"
        return document["data"]

    async def _reached(self, is_reached: Callable[[set[str]], bool], label: str) -> None:
        firing: set[str] = set()

        async def look() -> bool:
            nonlocal firing
            firing = await self.firing()
            return is_reached(firing)

        try:
            await eventually(look, timeout=40)
        except AssertionError as error:
            raise AssertionError(f"never true: {label}; in the end there are {sorted(firing)}") from error


def hurried(rules: str) -> str:
    """The rules with all their times cut short, and nothing else changed."""
    rules = re.sub(r"\bfor: \w+", "for: 500ms", rules)
    return re.sub(r"\[\d\w*\]|(?<= offset )\w+", lambda each: _short(each[0]), rules)


@asynccontextmanager
async def prometheus(directory: Path, targets: Iterable[str], rules: str) -> AsyncIterator[Prometheus]:
    """Scrapes these targets as the job pullthrough, and evaluates these rules."""
    require_program("prometheus", "prometheus")
    (directory / "rules.yml").write_text(rules)
    (directory / "prometheus.yml").write_text(_configuration(targets))  # JSON is YAML.
    port = free_port()
    command = (
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    with (directory / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec("prometheus", *command, stdout=log, stderr=log)
    try:
        async with aiohttp.ClientSession() as session:
            running = Prometheus(f"http://127.0.0.1:{port}", session)
            await eventually(lambda: _is_ready(running, process), label="Prometheus is ready")
            assert process.returncode is None, (directory / "prometheus.log").read_text()
            yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _is_ready(running: Prometheus, process: asyncio.subprocess.Process) -> bool:
    if process.returncode is not None:
        return True
    try:
        async with running.session.get(f"{running.url}/-/ready") as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False


def _configuration(targets: Iterable[str]) -> str:
    interval = f"{SCRAPE_MILLISECONDS}ms"
    return json.dumps(
        {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "pullthrough", "static_configs": [{"targets": list(targets)}]}],
        }
    )


def _short(duration: str) -> str:
    return f"[{WINDOW_SECONDS}s]" if duration.startswith("[") else f"{WINDOW_SECONDS}s"
