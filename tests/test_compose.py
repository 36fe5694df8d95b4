"""config/compose.yaml: what it mounts is there, what it sets are settings, and its parts find one another."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.cli import _parser
from proxy.config import Config, load
from tests.ports import free_port
from tests.programs import require_program
from tests.prometheus_rig import prometheus

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "config"
FILE = FOLDER / "compose.yaml"
ACCOUNT = {"DOCKERHUB_USERNAME": "alice"}
LOOPBACK = "127.0.0.1:"


def interpolated(node: Any, environ: Mapping[str, str]) -> Any:
    """With its variables replaced, as compose does it after it has read the YAML; as far as this file goes."""
    if isinstance(node, dict):
        return {key: interpolated(value, environ) for key, value in node.items()}
    if isinstance(node, list):
        return [interpolated(value, environ) for value in node]
    return (
        re.sub(r"\$\{(\w+)(:[-+])([^}]*)\}", lambda each: _value(each, environ), node)
        if isinstance(node, str)
        else node
    )


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    name, operator, word = match.groups()
    given = environ.get(name, "")
    return (given or word) if operator == ":-" else (given and word)


def document(environ: Mapping[str, str] = ACCOUNT) -> dict[str, Any]:
    """The file as compose sees it."""
    found: dict[str, Any] = interpolated(yaml.safe_load(FILE.read_text()), environ)
    return found


def service(name: str, environ: Mapping[str, str] = ACCOUNT) -> dict[str, Any]:
    found: dict[str, Any] = document(environ)["services"][name]
    return found


def config(environ: Mapping[str, str]) -> Config:
    """What the cache understands of what it is given."""
    return load(None, service("cache", environ)["environment"])


def mounts(name: str) -> dict[str, str]:
    """What is mounted where: a path of this tree, or the name of a volume."""
    pairs = (each.split(":") for each in service(name)["volumes"])
    return {target: source for source, target, *_ in pairs}


def provisioned(kind: str) -> dict[str, Any]:
    """The only file of Grafana's provisioning of this kind."""
    (file,) = (FOLDER / "grafana" / "provisioning" / kind).iterdir()
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


def scraped() -> dict[str, Any]:
    """The configuration of Prometheus."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())
    return found


def test_what_is_mounted_is_there_or_a_volume_that_is_named() -> None:
    sources = [source for name in document()["services"] for source in mounts(name).values()]
    named = {source for source in sources if not source.startswith(".")}
    assert named == document()["volumes"].keys()
    for source in set(sources) - named:
        assert (FOLDER / source).exists(), source


def test_the_volume_of_the_cache_is_the_one_of_its_image() -> None:
    (volume,) = json.loads(re.findall(r"^VOLUME (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0])
    assert mounts("cache")[volume] == "cache"
    assert (FOLDER / service("cache")["build"] / "Dockerfile").exists()


def test_the_account_comes_by_a_file_that_git_does_not_take() -> None:
    (name,) = service("cache")["secrets"]
    (upstream,) = config(ACCOUNT).upstreams
    assert (upstream.username, str(upstream.password_file)) == ("alice", f"/run/secrets/{name}")
    assert upstream.password is None

    file = (FOLDER / document()["secrets"][name]["file"]).relative_to(ROOT)
    assert f"/{file}" in (ROOT / ".gitignore").read_text().splitlines()


def test_without_an_account_there_is_none() -> None:
    (upstream,) = config({}).upstreams
    assert (upstream.username, upstream.password_file) == (None, None)


def test_a_size_that_is_given_is_the_size_of_the_cache() -> None:
    given = config({"PULLTHROUGH_CACHE__MAX_SIZE": "50GiB"}).cache.max_size
    assert given.of(0) == 50 * 2**30


def test_only_the_port_of_clients_is_there_for_other_machines() -> None:
    published = {name: each["ports"] for name, each in document()["services"].items()}
    assert [port for ports in published.values() for port in ports if not port.startswith(LOOPBACK)] == ["5000:5000"]
    assert config(ACCOUNT).server.listen.port == 5000
    assert f"{LOOPBACK}5001:{config(ACCOUNT).admin.listen.port}" in published["cache"]


def test_images_that_are_not_built_here_are_of_one_version() -> None:
    fetched = [each["image"] for each in document()["services"].values() if "build" not in each]
    assert fetched
    for image in fetched:
        assert re.search(r":v?\d+\.\d+\.\d+$", image), image


def test_every_service_says_how_it_is_and_comes_back() -> None:
    for name, each in document()["services"].items():
        assert each["healthcheck"]["test"][0] == "CMD", name
        assert each["restart"] == "unless-stopped", name
        assert each["cap_drop"] == ["ALL"], name
    program, *arguments = service("cache")["healthcheck"]["test"][1:]
    assert program == "pullthrough"
    assert _parser().parse_args(arguments).command == "healthcheck"


def test_pulls_may_come_to_their_end_before_the_cache_is_killed() -> None:
    assert int(service("cache")["stop_grace_period"].removesuffix("s")) > config(ACCOUNT).server.shutdown_timeout


async def test_the_healthcheck_of_prometheus_is_one(tmp_path: Path) -> None:
    require_program("busybox", "busybox-static")  # Whose wget it is, in both images.
    async with prometheus(tmp_path, [], "groups: []") as running:
        *command, url = service("prometheus")["healthcheck"]["test"][1:]
        here = url.replace("http://127.0.0.1:9090", running.url)
        for asked, expected in ((here, 0), (url.replace("9090", str(free_port())), 1)):
            check = await asyncio.create_subprocess_exec("busybox", *command, asked)
            assert await check.wait() == expected


def test_prometheus_takes_its_configuration_and_asks_the_cache() -> None:
    require_program("promtool", "prometheus")
    file = FOLDER / "prometheus" / "prometheus.yml"
    check = subprocess.run(["promtool", "check", "config", str(file)], capture_output=True, text=True, timeout=60)
    assert check.returncode == 0, check.stdout + check.stderr

    (job,) = scraped()["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"cache:{config(ACCOUNT).admin.listen.port}"]}]
    assert f'up{{job="{job["job_name"]}"}}' in (FOLDER / "prometheus" / "pullthrough.rules.yml").read_text()

    options = dict(each.lstrip("-").split("=") for each in service("prometheus")["command"])
    assert mounts("prometheus")[str(Path(options["config.file"]).parent)] == "./prometheus"
    assert mounts("prometheus")[options["storage.tsdb.path"]] == "prometheus"


def test_grafana_asks_prometheus_and_shows_the_dashboard() -> None:
    (source,) = provisioned("datasources")["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == scraped()["global"]["scrape_interval"]

    (provider,) = provisioned("dashboards")["providers"]
    dashboard = f"{provider['options']['path']}/pullthrough.json"
    assert mounts("grafana")[dashboard] == "./grafana/pullthrough.json"
    assert service("grafana")["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == dashboard
    for kind in ("datasources", "dashboards"):
        assert mounts("grafana")[f"/etc/grafana/provisioning/{kind}"] == f"./grafana/provisioning/{kind}"


def test_nobody_logs_in_to_grafana_so_there_is_no_password_that_everybody_knows() -> None:
    environ = service("grafana")["environment"]
    assert environ["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environ["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_compose_itself_understands_it() -> None:
    """Debian has no compose; where there is one, its own word counts."""
    command = ["docker", "compose", "--file", str(FILE)]
    if (
        not shutil.which("docker")
        or subprocess.run([*command, "version"], capture_output=True, timeout=60).returncode != 0
    ):
        pytest.skip("there is no docker compose here")
    check = subprocess.run([*command, "config", "--quiet"], capture_output=True, text=True, timeout=60)
    assert check.returncode == 0, check.stderr
