"""A real Prometheus scrapes the admin listener."""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from ..ports import free_port
from .cache import Cache
from .images import Image
from .processes import Process, wait_until
from .pulls import pull

pytestmark = pytest.mark.clients("prometheus", "promtool")


def test_promtool_finds_nothing_to_say_about_the_metrics(cache: Cache, sixty: Image) -> None:
    pull(cache.port, sixty)
    check = subprocess.run(
        ["promtool", "check", "metrics"], input=cache.metrics_text(), capture_output=True, text=True, timeout=30
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def test_prometheus_scrapes_the_cache(cache: Cache, sixty: Image, scratch: Path) -> None:
    pull(cache.port, sixty)
    configuration = scratch / "prometheus.json"
    job = {"job_name": "pullthrough", "static_configs": [{"targets": [cache.metrics_address]}]}
    configuration.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={configuration}",  # JSON is YAML
        f"--storage.tsdb.path={scratch}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with Process(command, scratch / "prometheus.log") as process:
        wait_until(lambda: _is_ready(port), "Prometheus is ready", process=process)
        wait_until(lambda: _query(port, "up") == [1], "Prometheus has scraped the cache", process=process)
        assert _query(port, "sum(pullthrough_counted_pulls_total)") == [1]
        assert _query(port, "pullthrough_ratelimit_remaining") == [9_999]
        assert sum(_query(port, "pullthrough_served_bytes_total")) >= sixty.size


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=10) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        with error:
            return False  # it listens, and is still reading its database
    except urllib.error.URLError:
        return False


def _query(port: int, expression: str) -> list[float]:
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10) as response:
        return [float(series["value"][1]) for series in json.load(response)["data"]["result"]]
