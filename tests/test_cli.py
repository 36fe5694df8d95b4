"""The command line, `check-config` and `healthcheck`, as a shell runs them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from proxy import __version__
from proxy.cli import main
from tests.cli_rig import Output, admin, bare_environment, run, unused_port

__all__ = ["bare_environment", "unused_port"]  # Fixtures: used by their names.

# The command line


def test_the_version_is_told() -> None:
    told = run("--version")
    assert (told.returncode, told.stdout) == (0, f"pullthrough {__version__}\n")


@pytest.mark.parametrize("arguments", [["unknown"], ["serve", "--wrong"], ["serve", "extra"], ["serve", "--conf", "x"]])
def test_a_wrong_command_line_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_no_command_shows_what_there_is(capsys: Output) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().err
    assert all(command in shown for command in ("serve", "check-config", "healthcheck", "status"))


def test_commands_start_without_the_server_s_libraries() -> None:
    code = "import sys, proxy.cli; print({'aiohttp', 'asyncio', 'prometheus_client', 'sqlite3'} & sys.modules.keys())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


# check-config


def test_check_config_prints_what_it_understood_as_toml(capsys: Output, tmp_path: Path) -> None:
    path = tmp_path / "pullthrough.toml"
    path.write_text("[freshness]\ntags = 90\n[[upstream]]\nname = 'ghcr.io'\n")
    assert main(["check-config", "--config", str(path)]) == 0
    first = capsys.readouterr().out
    assert '[freshness]\ntags = "1m30s"\n' in first
    assert '[[upstream]]\nname = "ghcr.io"\nurl = "https://ghcr.io"\n' in first

    path.write_text(first)
    assert main(["check-config", "--config", str(path)]) == 0
    assert capsys.readouterr().out == first


def test_check_config_as_json(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULLTHROUGH_METRICS__ALIASES", "yes")
    assert main(["check-config", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["metrics"] == {"aliases": True}
    assert [each["name"] for each in document["upstream"]] == ["docker.io"]


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_check_config_never_prints_a_secret(capsys: Output, monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
    monkeypatch.setenv("DOCKERHUB_USERNAME", "alice")
    monkeypatch.setenv("DOCKERHUB_TOKEN", "dckr_pat_secret")
    assert main(["check-config", *flags]) == 0
    shown = capsys.readouterr().out
    assert "alice" in shown
    assert "dckr_pat_secret" not in shown


def test_check_config_says_where_a_password_comes_from(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKERHUB_USERNAME", "alice")
    monkeypatch.setenv("DOCKERHUB_TOKEN", "dckr_pat_secret")
    main(["check-config"])
    shown = capsys.readouterr().out
    assert shown.endswith("\n# password: given by the environment\n")
    assert "password" not in tomllib.loads(shown)["upstream"][0]


@pytest.mark.parametrize("command", ["serve", "check-config", "healthcheck", "status"])
def test_a_bad_configuration_exits_with_2_in_one_line(command: str) -> None:
    told = run(command, PULLTHROUGH_FRESHNESS__TAGS="soon")
    assert told.returncode == 2
    assert told.stderr.startswith("pullthrough: PULLTHROUGH_FRESHNESS__TAGS is 'soon'; expected a duration")
    assert told.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_a_missing_password_file_exits_with_2(command: str, tmp_path: Path) -> None:
    told = run(command, DOCKERHUB_USERNAME="alice", DOCKERHUB_TOKEN_FILE=str(tmp_path / "none"))
    assert told.returncode == 2
    assert told.stderr.startswith("pullthrough: cannot read password_file of upstream docker.io")


def test_the_file_is_named_by_the_option_or_by_the_environment(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    by_variable, by_option = tmp_path / "variable.toml", tmp_path / "option.toml"
    by_variable.write_text("[log]\nlevel = 'error'\n")
    by_option.write_text("[log]\nlevel = 'debug'\n")
    monkeypatch.setenv("PULLTHROUGH_CONFIG", str(by_variable))
    main(["check-config"])
    assert 'level = "error"' in capsys.readouterr().out
    main(["check-config", "--config", str(by_option)])
    assert 'level = "debug"' in capsys.readouterr().out


# healthcheck


def test_healthcheck_is_content_with_a_process_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with admin(b"ok\n") as port:
        for host in ("0.0.0.0", "", "127.0.0.1"):
            monkeypatch.setenv("PULLTHROUGH_ADMIN__LISTEN", f"{host}:{port}")
            assert main(["healthcheck"]) == 0


def test_healthcheck_fails_when_nothing_listens(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    monkeypatch.setenv("PULLTHROUGH_ADMIN__LISTEN", f"127.0.0.1:{unused_port}")
    assert main(["healthcheck"]) == 1
    assert capsys.readouterr().err.startswith(f"pullthrough: nothing listens on 127.0.0.1:{unused_port}; is")


def test_healthcheck_fails_when_the_process_is_not_well(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    with admin(b"", status=500) as port:
        monkeypatch.setenv("PULLTHROUGH_ADMIN__LISTEN", f"127.0.0.1:{port}")
        assert main(["healthcheck"]) == 1
    assert "answered /healthz with 500" in capsys.readouterr().err


def test_healthcheck_fails_when_the_process_hangs(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.cli.healthcheck._TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PULLTHROUGH_ADMIN__LISTEN", f"127.0.0.1:{silent.getsockname()[1]}")
        assert main(["healthcheck"]) == 1
    assert "did not answer within 0.1 s" in capsys.readouterr().err


def test_healthcheck_says_that_a_free_port_cannot_be_known(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULLTHROUGH_ADMIN__LISTEN", ":0")
    assert main(["healthcheck"]) == 1
    assert "port 0" in capsys.readouterr().err
