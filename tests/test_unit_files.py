"""The files for systemd: every option exists, the commands are ours, and what they promise fits the defaults."""

from __future__ import annotations

import argparse
import shlex
import subprocess
from pathlib import Path

import pytest

from proxy.app.listener import HANDING_OVER_SECONDS
from proxy.app.sockets import BACKLOG
from proxy.cli import _parser
from proxy.config import Config, load
from proxy.systemd.activation import NAMES
from proxy.units import parse_duration
from tests.programs import require_program, skip_or_fail

FOLDER = Path(__file__).parent.parent / "config" / "systemd"
PROGRAM = "/opt/pullthrough/bin/pullthrough"
SPECIFIERS = {"%S": "/var/lib", "%d": "/run/credentials/pullthrough.service"}
EXPOSURE = 2.0
"""Of 10, as systemd-analyze counts; what is left is the network and the system's own files, read-only."""


def options(name: str) -> dict[str, list[str]]:
    """The values of a unit file by key, in order."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def environment(*names: str) -> dict[str, str]:
    """What these files set, with the specifiers that are used in them written out."""
    values = [value for name in names for value in options(name).get("Environment", [])]
    for specifier, meaning in SPECIFIERS.items():
        values = [value.replace(specifier, meaning) for value in values]
    return dict(value.split("=", 1) for value in values)


def copied(folder: Path) -> list[Path]:
    """The units as they would be installed, with a program that is there."""
    (folder / "pullthrough.service.d").mkdir()
    (folder / "pullthrough.service.d" / "account.conf").write_text((FOLDER / "account.conf").read_text())
    units = [folder / "pullthrough.service", folder / "pullthrough.socket"]
    for unit in units:
        unit.write_text((FOLDER / unit.name).read_text().replace(PROGRAM, "/bin/true"))
    return units


def test_systemd_finds_nothing_to_say_about_them(tmp_path: Path) -> None:
    require_program("systemd-analyze", "systemd")
    units = copied(tmp_path)
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    about_ours = [line for line in (done.stdout + done.stderr).splitlines() if "pullthrough" in line]
    assert (done.returncode, about_ours) == (0, [])


def test_systemd_says_of_an_option_that_does_not_exist_that_it_does_not(tmp_path: Path) -> None:
    """So that the test above means something."""
    require_program("systemd-analyze", "systemd")
    unit, _ = copied(tmp_path)
    unit.write_text(unit.read_text().replace("[Service]", "[Service]\nProtectEverything=yes"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "ProtectEverything" in done.stdout + done.stderr


def test_the_service_is_shut_in(tmp_path: Path) -> None:
    require_program("systemd-analyze", "systemd")
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={EXPOSURE * 10:.0f}",
        str(copied(tmp_path)[0]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        skip_or_fail("this systemd-analyze is too old to look at a file")
    assert done.returncode == 0, done.stdout[-400:]


@pytest.mark.parametrize("key", ["ExecStart", "ExecReload"])
def test_its_commands_are_commands_of_ours(key: str) -> None:
    for command in options("pullthrough.service")[key]:
        program, *arguments = shlex.split(command)
        if program == PROGRAM:
            parsed: argparse.Namespace = _parser().parse_args(arguments)
            assert parsed.config == Path("/etc/pullthrough/pullthrough.toml")
        else:
            assert (program, arguments) == ("/bin/kill", ["-HUP", "$MAINPID"])


def test_its_environment_is_understood() -> None:
    config = load(None, environment("pullthrough.service", "account.conf"))
    (state,) = options("pullthrough.service")["StateDirectory"]
    assert config.cache.directory == Path(SPECIFIERS["%S"]) / state
    (credential,) = options("account.conf")["LoadCredential"]
    assert config.upstreams[0].username == "youruser"
    assert config.upstreams[0].password_file == Path(SPECIFIERS["%d"]) / credential.partition(":")[0]


def test_its_limits_fit_the_defaults() -> None:
    unit, config = options("pullthrough.service"), Config()
    assert int(unit["LimitNOFILE"][0]) >= 256 + 3 * config.server.max_connections
    (patience,) = unit["TimeoutStopSec"]
    assert parse_duration(patience) > config.server.shutdown_timeout + 2 * HANDING_OVER_SECONDS
    assert unit["Type"] == ["notify"]


def test_the_socket_is_the_one_that_clients_would_have_without_it() -> None:
    unit = options("pullthrough.socket")
    assert unit["ListenStream"] == [str(Config().server.listen)]
    assert unit["FileDescriptorName"][0] in NAMES
    assert unit["Backlog"] == [str(BACKLOG)]
