"""`doctor` as a shell runs it: lines, JSON, exit codes, and no secret in any of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.cli.doctor_text import Lines, summary
from proxy.doctor.findings import Result, failed, ok, skipped
from tests.cli_rig import Output, bare_environment, run
from tests.doctor_rig import SetUp, healthy, short
from tests.fake_hub import FakeHub

__all__ = ["bare_environment", "healthy", "short"]  # Fixtures: used by their names.

COMMAND = "a command that is rather long and is not wrapped at all"
RESULTS = [
    Result("one", ok("as it should be")),
    Result(
        "two", failed("it is \x1b[2J broken", "Do this:\n    a command that is rather long and is not wrapped at all")
    ),
    Result("three", skipped("nothing to see")),
]


async def doctor(setup: SetUp, *arguments: str, **environ: str) -> tuple[int, str]:
    """Exit code and output of the command for this set-up."""
    config = setup.config
    settings = {
        "PULLTHROUGH_SERVER__LISTEN": str(config.server.listen),
        "PULLTHROUGH_ADMIN__LISTEN": str(config.admin.listen),
        "PULLTHROUGH_CACHE__DIRECTORY": str(config.cache.directory),
        "PULLTHROUGH_UPSTREAM__URL": setup.hub.url,
        "PULLTHROUGH_UPSTREAM__NAME": "docker.io",
        "DOCKERHUB_USERNAME": setup.hub.username,
        "DOCKERHUB_TOKEN": setup.hub.pat,
    }
    root = ["--root", str(setup.root)]
    told = await asyncio.to_thread(run, "doctor", *root, *arguments, **(settings | environ))
    assert told.stderr == ""
    return told.returncode, told.stdout


async def test_a_healthy_set_up_exits_with_0_and_a_line_a_step(healthy: SetUp) -> None:
    code, told = await doctor(healthy, PYTHONIOENCODING="utf-8")
    lines = told.splitlines()
    assert code == 0, told
    assert lines[0].startswith("✓ configuration        no file, only the environment")
    assert [line[0] for line in lines[:-2] if line[0] not in "✓–"] == []  # noqa: RUF001 (a dash)
    assert lines[-1] == "All is well: 13 of 16 checks made, none failed."
    assert healthy.hub.counted_pulls == 1


async def test_what_is_wrong_exits_with_1_and_says_what_to_do(healthy: SetUp) -> None:
    code, told = await doctor(healthy, "--no-canary", DOCKERHUB_TOKEN="dckr_pat_wrong", PYTHONIOENCODING="utf-8")
    lines = told.splitlines()
    assert code == 1
    number = next(number for number, line in enumerate(lines) if line.startswith("✗"))
    assert lines[number] == "✗ docker.io login      the username alice or its access token is wrong"
    assert lines[number + 1].startswith("  -> At https://app.docker.com/")
    assert lines[-1] == "1 of 16 checks failed: docker.io login."
    assert "dckr_pat_wrong" not in told


async def test_ascii_is_enough(healthy: SetUp) -> None:
    code, told = await doctor(healthy, "--no-canary", "--no-clients", PYTHONIOENCODING="ascii")
    assert code == 0
    assert told.isascii()
    assert told.startswith("ok   configuration ")
    assert "\n-    dockerd " in told


async def test_as_json(healthy: SetUp) -> None:
    await healthy.hub.gone()
    code, told = await doctor(healthy, "--json")
    document = json.loads(told)
    assert code == 1
    assert document["ok"] is False
    states = {check["name"]: check["state"] for check in document["checks"]}
    assert (states["configuration"], states["docker.io TCP"], states["docker.io login"]) == ("ok", "failed", "skipped")
    assert all(bool(check["cure"]) == (check["state"] == "failed") for check in document["checks"])


async def test_secrets_are_not_told(healthy: SetUp) -> None:
    tokens: list[str] = []
    note_tokens(healthy.hub, tokens)
    for arguments in ([], ["--json"]):
        _, told = await doctor(healthy, *arguments)
        assert tokens
        assert [secret for secret in (healthy.hub.pat, "verify=", *tokens) if secret in told] == []


def note_tokens(hub: FakeHub, tokens: list[str]) -> None:
    hub.change(
        lambda request: bool(tokens.append(request.headers.get("Authorization", "none yet").partition(" ")[2])),  # type: ignore[func-returns-value]
        lambda answer: None,
    )


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_configuration_that_cannot_be_used_exits_with_2(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: list[str]
) -> None:
    path = tmp_path / "pullthrough.toml"
    path.write_text("[freshness]\ntags = 'soon'\n")
    assert main(["doctor", "--config", str(path), *flags]) == 2
    told = capsys.readouterr()
    assert "freshness.tags is 'soon'; expected a duration" in told.out
    assert path.name in told.out
    assert told.err == ""


def test_a_password_file_that_cannot_be_read_exits_with_2(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKERHUB_USERNAME", "alice")
    monkeypatch.setenv("DOCKERHUB_TOKEN_FILE", "/nowhere/token")
    assert main(["doctor"]) == 2
    assert "cannot read password_file of upstream docker.io" in capsys.readouterr().out


@pytest.mark.parametrize("url", ["cache:5000", "http://cache/path", "ftp://cache", "http://user:secret@cache"])
def test_a_url_that_is_none_exits_with_2(capsys: Output, url: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--url", url])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert "expected http://host:port" in told
    assert "secret" not in told


def test_a_canary_that_is_no_image_exits_with_2(capsys: Output) -> None:
    assert main(["doctor", "--canary", "UPPER"]) == 2
    assert capsys.readouterr().err.startswith("pullthrough: --canary 'UPPER' is not an image")


# The lines


def test_a_cure_stands_beneath_and_commands_in_it_stay_whole() -> None:
    lines = Lines("utf-8", colours=False, width=60)
    assert [lines.of(result) for result in RESULTS] == [
        "✓ one                  as it should be",
        f"✗ two                  it is ?[2J broken\n  -> Do this:\n         {COMMAND}",
        "– three                nothing to see",  # noqa: RUF001 (a dash)
    ]
    assert summary(RESULTS) == "1 of 3 checks failed: two."


def test_colours_are_for_terminals() -> None:
    plain, coloured = (Lines("utf-8", colours=colours, width=80).of(RESULTS[0]) for colours in (False, True))
    assert "\x1b" not in plain
    assert coloured == plain.replace("✓", "\x1b[32m✓\x1b[0m")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_line_can_be_written_in_the_encoding(encoding: str) -> None:
    lines = Lines(encoding, colours=False, width=80)
    told = lines.of(Result("one", failed("caché ✓ \udcff", "cure ✗")))
    assert told.encode(encoding)
