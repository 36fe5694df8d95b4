"""`pullthrough setup` as a shell runs it: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.setup import CLIENTS, clients_text, setup_text
from tests.cli_rig import Output, bare_environment

__all__ = ["bare_environment"]  # A fixture: used by its name.

URL = "http://cache:5000"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine called `builder`."""
    monkeypatch.setattr("socket.gethostname", lambda: "builder")


def test_without_a_client_it_lists_them(capsys: Output) -> None:
    assert main(["setup"]) == 0
    assert capsys.readouterr().out == clients_text()


def test_the_list_as_json(capsys: Output) -> None:
    assert main(["setup", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["clients"]) == list(CLIENTS)


@pytest.mark.parametrize("client", CLIENTS)
def test_it_prints_what_the_listener_would_say(capsys: Output, client: str) -> None:
    assert main(["setup", client, "--url", URL]) == 0
    assert capsys.readouterr().out.startswith(setup_text(client, URL, ["docker.io"]))


def test_it_says_that_it_can_write_where_it_can(capsys: Output) -> None:
    main(["setup", "podman", "--url", URL])
    assert "`pullthrough setup podman --write`" in capsys.readouterr().out
    main(["setup", "kaniko", "--url", URL])
    assert "--write" not in capsys.readouterr().out


def test_the_upstreams_are_those_of_the_configuration(capsys: Output, tmp_path: Path) -> None:
    path = tmp_path / "pullthrough.toml"
    path.write_text('[[upstream]]\nname = "docker.io"\n[[upstream]]\nname = "quay.io"\n')
    assert main(["setup", "containerd", "--config", str(path), "--url", URL, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    paths = [f"/etc/containerd/certs.d/{name}/hosts.toml" for name in ("docker.io", "quay.io")]
    assert [each["path"] for each in document["files"]] == paths
    assert (document["client"], document["url"], document["restart"]) == ("containerd", URL, None)
    assert document["check"].startswith("ctr images pull")
    assert all(each["content"] for each in document["files"])


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("0.0.0.0:5000", "http://builder:5000"),
        (":5123", "http://builder:5123"),
        ("[::]:5000", "http://builder:5000"),
        ("192.0.2.1:5000", "http://192.0.2.1:5000"),
        ("[2001:db8::1]:5000", "http://[2001:db8::1]:5000"),
    ],
)
def test_the_url_follows_from_the_listener(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, listen: str, url: str
) -> None:
    monkeypatch.setenv("PULLTHROUGH_SERVER__LISTEN", listen)
    assert main(["setup", "dockerd", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["url"] == url


def test_a_free_port_cannot_be_told(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULLTHROUGH_SERVER__LISTEN", "127.0.0.1:0")
    assert main(["setup", "dockerd"]) == 2
    assert capsys.readouterr().err.startswith(
        "pullthrough: server.listen has port 0, so the port cannot be known; give"
    )
    assert main(["setup", "dockerd", "--url", URL]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["docker"], "no such client is known; known are: dockerd, containerd, podman"),
        (["dockerd", "--url", "cache:5000"], "expected the URL of the cache"),
        (["dockerd", "--url", "http://user:secret@cache:5000"], "no path and no user"),
        (["--write"], "--write needs a client"),
        (["dockerd", "--force"], "--force and --root are for --write"),
        (["dockerd", "--root", "/nowhere"], "--force and --root are for --write"),
    ],
)
def test_a_wrong_command_line_exits_with_2_in_one_line(capsys: Output, arguments: list[str], said: str) -> None:
    assert main(["setup", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("pullthrough: ")
    assert said in told.err
    assert "secret" not in told.err
    assert told.err.count("\n") == 1


def test_a_bad_configuration_exits_with_2(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULLTHROUGH_FRESHNESS__TAGS", "soon")
    assert main(["setup", "dockerd"]) == 2
    assert "PULLTHROUGH_FRESHNESS__TAGS" in capsys.readouterr().err


@pytest.mark.parametrize("client", ["kind", "kaniko", "github-actions", "gitlab-runner"])
def test_nothing_is_written_for_clients_without_a_file_here(capsys: Output, tmp_path: Path, client: str) -> None:
    assert main(["setup", client, "--url", URL, "--write", "--root", str(tmp_path)]) == 2
    assert f"{client} has nothing to write on this machine" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
