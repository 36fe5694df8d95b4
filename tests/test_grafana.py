"""The dashboard of config/grafana: every query of every panel has data in a real Prometheus that scraped a real run."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import aiohttp

from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.ports import free_port
from tests.prometheus_rig import RULES, WINDOW_SECONDS, Prometheus, hurried, prometheus
from tests.service_rig import service

FILE = Path(__file__).parent.parent / "config" / "grafana" / "pullthrough.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
OF_GRAFANA = {
    "$__rate_interval": f"{WINDOW_SECONDS}s",
    "$__range": "1m",
    "$job": "pullthrough",
    "$instance": ".+",
    "$upstream": ".+",
}
CORE = {"row", "stat", "gauge", "timeseries", "state-timeline", "table"}
"""The kinds of panels that every Grafana has."""
COLUMNS = 24

APP, MIRROR = "acme/app", "mirror.example"
LAYER = 100 * 1024
CONFIG = """
[server]
listen = "127.0.0.1:{clients}"
header_timeout = "1s"
[admin]
listen = "127.0.0.1:{admins}"
[cache]
directory = "{folder}/cache"
max_size = "400KiB"
min_free = "0B"
grace = "0s"
[freshness]
tags = "1ms"
[log]
format = "json"
[[upstream]]
name = "docker.io"
url = "{hub}"
username = "alice"
password_file = "{folder}/pat"
fallbacks = ["{mirror_name}"]
[[upstream]]
name = "{mirror_name}"
url = "{mirror}"
"""


def panels(of: dict[str, Any] = DASHBOARD) -> Iterator[dict[str, Any]]:
    """All panels, those in folded rows too."""
    for panel in of["panels"]:
        yield panel
        if "panels" in panel:
            yield from panels(panel)


def expressions() -> list[str]:
    """Every query of a panel, as Grafana would send it."""
    return [interpolated(target["expr"]) for panel in panels() for target in panel.get("targets", ())]


def interpolated(expression: str) -> str:
    for name, value in OF_GRAFANA.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"a variable that this test does not know: {expression}"
    return expression


def variables() -> dict[str, str]:
    """The queries of the variables, by name."""
    return {each["name"]: each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"}


def metrics_of(text: str) -> set[str]:
    return set(re.findall(r"\b(?:pullthrough|process)_[a-z0-9_]+\b(?!:)", text))


# As a file


def test_every_panel_has_a_title_a_place_a_unit_and_says_what_it_shows() -> None:
    found = list(panels())
    assert len({panel["id"] for panel in found}) == len(found)
    for panel in found:
        assert panel["type"] in CORE
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["targets"]


def test_no_panel_lies_on_another() -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in panels()]
    assert all(place["x"] + place["w"] <= COLUMNS for _, place in places)
    for (one, at), (other, there) in combinations(places, 2):
        beside = at["x"] + at["w"] <= there["x"] or there["x"] + there["w"] <= at["x"]
        above = at["y"] + at["h"] <= there["y"] or there["y"] + there["h"] <= at["y"]
        assert beside or above, f"{one} lies on {other}"


def test_every_query_is_of_the_chosen_source_job_and_instance() -> None:
    for panel in panels():
        for target in panel.get("targets", ()):
            assert panel["datasource"] == target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            selectors = re.findall(r"\b(?:pullthrough_\w+|process_\w+|ALERTS)(\{[^}]*\})?", target["expr"])
            assert selectors
            for selector in selectors:
                assert 'job=~"$job", instance=~"$instance"' in selector, target["expr"]


def test_the_queries_of_a_panel_have_names_of_their_own() -> None:
    for panel in panels():
        names = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(names)) == len(names)
        for override in panel.get("fieldConfig", {}).get("overrides", ()):
            assert override["matcher"]["options"] in names


# In a real run


class Run:
    """A cache that is asked all the while, by clients and by Prometheus."""

    def __init__(self, folder: Path, hub: FakeHub, mirror: FakeHub, session: aiohttp.ClientSession) -> None:
        self.hub, self.mirror = hub, mirror
        self.clients, self.admins = free_port(), free_port()
        self._session = session
        self._images = [hub.add_image(APP, f"v{number}", [bytes([number]) * LAYER]) for number in range(6)]
        (folder / "pat").write_text(hub.pat)
        self.config = folder / "pullthrough.toml"
        self.config.write_text(
            CONFIG.format(
                clients=self.clients,
                admins=self.admins,
                folder=folder,
                hub=hub.url,
                mirror=mirror.url,
                mirror_name=MIRROR,
            )
        )

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.admins}"

    async def get(self, path: str) -> int:
        """The status of what a client gets; a body that breaks off is one more status."""
        try:
            async with self._session.get(f"http://127.0.0.1:{self.clients}/v2/{APP}/{path}") as response:
                await response.read()
                return response.status
        except aiohttp.ClientError:
            return 0

    async def pulls(self) -> None:
        """More images than there is room for, again and again."""
        while True:
            for image in self._images:
                for path in (
                    f"manifests/{image.tag}",
                    f"manifests/{image.digest}",
                    *map("blobs/{}".format, image.blobs),
                ):
                    await self.get(path)
                await asyncio.sleep(0.05)

    async def adventures(self) -> None:
        """What does not happen by itself: bad bytes, a slow client, an outage, a scrub, and little that is left."""
        spoilt = self.hub.add_image(APP, "spoilt", [b"never whole" * 1000])
        self.hub.corrupt(spoilt.layers[0])
        await self.get("manifests/spoilt")
        await self.get(f"blobs/{spoilt.layers[0]}")
        await self._say_half()
        self.mirror.add_image(APP, "abroad")
        await self.hub.gone()
        assert await self.get("manifests/abroad") == 200
        await self.hub.back()
        async with self._session.post(f"http://{self.target}/api/scrub", json={}) as response:
            assert response.status == 202
        self.hub.set_remaining(5)

    async def _say_half(self) -> None:
        """A request that is never finished."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.clients)
        writer.write(b"GET /v2/ HTTP/1.1\r\nHost:")
        await reader.read()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def watched_run(folder: Path) -> AsyncIterator[tuple[Run, Prometheus]]:
    """Everything has happened once, and the clients go on."""
    async with FakeHub() as hub, FakeHub(rate_limit=None) as mirror, aiohttp.ClientSession() as session:
        run = Run(folder, hub, mirror, session)
        rules = hurried(RULES.read_text())
        async with (
            prometheus(folder, [run.target], rules) as watch,
            service(run.config, environ={}),
            asyncio.TaskGroup() as group,
        ):
            pulls = group.create_task(run.pulls())
            await run.adventures()
            yield run, watch
            pulls.cancel()


async def without_data(watch: Prometheus, queries: Iterable[str]) -> set[str]:
    """Those of the queries that have no number to show now."""
    return {each for each in queries if not any(math.isfinite(value) for _, value in await watch.query(each))}


async def test_every_panel_and_every_variable_has_data(tmp_path: Path) -> None:
    async with watched_run(tmp_path) as (run, watch):
        missing = set(expressions())

        async def all_seen() -> bool:
            missing.intersection_update(await without_data(watch, missing))
            return not missing

        try:
            await eventually(all_seen, timeout=30)
        except AssertionError:
            raise AssertionError("these queries never had data:\n" + "\n".join(sorted(missing))) from None

        assert await without_data(watch, ["pullthrough_nobody_counts_this_total"]) != set()
        known = set(await watch.label_values("__name__", '{__name__!=""}'))
        named = metrics_of(" ".join([*expressions(), *variables().values(), RULES.read_text()]))
        assert named - known == set()
        offered = {name: await values_of(watch, query) for name, query in variables().items()}
        assert offered == {
            "job": ["pullthrough"],
            "instance": [run.target],
            "upstream": ["docker.io", MIRROR],
        }


async def values_of(watch: Prometheus, query: str) -> list[str]:
    """What a variable offers: Grafana turns `label_values(selector, label)` into a request of its own."""
    match = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
    assert match, query
    return await watch.label_values(match[2], interpolated(match[1]))
