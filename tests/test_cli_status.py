"""`pullthrough status`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.cli import main
from proxy.cli.status_text import status_text
from tests.cli_rig import Output, admin, bare_environment, unused_port

__all__ = ["bare_environment", "unused_port"]  # Fixtures: used by their names.

DOCUMENT: dict[str, Any] = {
    "version": "0.1.0",
    "uptime_seconds": 93784.4,
    "listen": "0.0.0.0:5000",
    "cache": {"directory": "/cache", "blobs": 12, "bytes": 3 << 29, "memory_bytes": 5 << 20},
    "counters": {
        "hits": {"manifest": 30, "blob": 120},
        "misses": {"manifest": 4, "blob": 12},
        "stale": {"manifest": 2},
        "collapsed": {"blob": 9},
        "served_bytes": {"manifest": 1024, "blob": 1023 << 10},
        "fetched_bytes": {"blob": 512 << 10},
        "counted_pulls": {"docker.io": 4},
    },
    "upstreams": [
        {
            "name": "docker.io",
            "url": "https://registry-1.docker.io",
            "account": "alice",
            "credentials": "ok",
            "quota": {"limit": 200, "remaining": 180, "window_seconds": 21600, "observed_seconds_ago": 61.2},
            "pulls_closed_seconds": None,
            "requests_closed_seconds": None,
            "breaker_open_seconds": None,
        }
    ],
    "fills": [],
}


def test_status_shows_quota_hits_cache_and_fills(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    with admin(json.dumps(DOCUMENT).encode()) as port:
        monkeypatch.setenv("PULLTHROUGH_ADMIN__LISTEN", f":{port}")
        assert main(["status"]) == 0
    assert capsys.readouterr().out == (
        "pullthrough 0.1.0, up 1d2h, on 0.0.0.0:5000\n"
        "\n"
        "docker.io: as alice, 180 of 200 pulls left in 6h (heard 1m1s ago)\n"
        "\n"
        "                  hits    misses     stale collapsed\n"
        "manifests           30         4         2         0\n"
        "blobs              120        12         0         9\n"
        "\n"
        "traffic: 1MiB served, 512KiB fetched, 4 counted pulls\n"
        "cache:   12 blobs, 1.5GiB on disk, 5MiB in memory, in /cache\n"
        "fills:   none running\n"
    )


def test_status_as_json_is_the_document_as_it_is(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    with admin(json.dumps(DOCUMENT | {"later": 1}).encode()) as port:
        monkeypatch.setenv("PULLTHROUGH_ADMIN__LISTEN", f":{port}")
        assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == DOCUMENT | {"later": 1}


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"version": "0.1.0"}', b"\xff"])
def test_status_says_when_something_else_answers(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    with admin(answer) as port:
        monkeypatch.setenv("PULLTHROUGH_ADMIN__LISTEN", f"127.0.0.1:{port}")
        assert main(["status"]) == 1
    assert capsys.readouterr().err == (f"pullthrough: 127.0.0.1:{port} answered 200, and not with a status document\n")


def test_status_says_when_nothing_listens(capsys: Output, monkeypatch: pytest.MonkeyPatch, unused_port: int) -> None:
    monkeypatch.setenv("PULLTHROUGH_ADMIN__LISTEN", f":{unused_port}")
    assert main(["status"]) == 1
    assert "is `pullthrough serve` running" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"account": None, "quota": None}, "docker.io: anonymously, no limit heard of"),
        (
            {"quota": {"limit": None, "remaining": 0, "window_seconds": None, "observed_seconds_ago": 0}},
            "docker.io: as alice, 0 pulls left (heard 0s ago)",
        ),
        (
            {"quota": None, "credentials": "rejected"},
            "docker.io: as alice, no limit heard of, CREDENTIALS REJECTED: check the username and the token",
        ),
        (
            {"quota": None, "pulls_closed_seconds": 119.6, "requests_closed_seconds": 30.0},
            "docker.io: as alice, no limit heard of, no pulls for 2m, no requests for 30s",
        ),
        (
            {"quota": None, "breaker_open_seconds": 11.2},
            "docker.io: as alice, no limit heard of, CANNOT BE ASKED: tried again in 12s",
        ),
        (
            {"quota": None, "breaker_open_seconds": 0.0},
            "docker.io: as alice, no limit heard of, CANNOT BE ASKED: tried again with the next request",
        ),
    ],
)
def test_what_is_known_of_an_upstream_is_one_line(changed: dict[str, Any], line: str) -> None:
    document = DOCUMENT | {"upstreams": [DOCUMENT["upstreams"][0] | changed]}
    assert status_text(document, bars=False).splitlines()[2] == line


FILL = {"digest": "sha256:" + "ab" * 32, "repository": "docker.io/a/b", "received": 5 << 20, "readers": 1}


@pytest.mark.parametrize(
    ("fill", "bars", "line"),
    [
        (
            {"size": 20 << 20, "seconds": 2.5},
            True,
            "  sha256:abababababab  [#####...............]   25%  5MiB of 20MiB  2MiB/s  1 reader  docker.io/a/b",
        ),
        (
            {"size": 20 << 20, "seconds": 2.5},
            False,
            "  sha256:abababababab   25%  5MiB of 20MiB  2MiB/s  1 reader  docker.io/a/b",
        ),
        ({"size": None, "seconds": 0.2}, True, "  sha256:abababababab  5MiB  1 reader  docker.io/a/b"),
    ],
)
def test_a_running_fill_is_one_line_with_a_bar_on_a_terminal(fill: dict[str, Any], bars: bool, line: str) -> None:
    lines = status_text(DOCUMENT | {"fills": [FILL | fill]}, bars=bars).splitlines()
    assert lines[-2:] == ["fills:   1 running", line]
