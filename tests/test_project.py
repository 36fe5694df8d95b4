"""The files around the program: the wheel, the locks, the image, and what the README says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import fields
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

from proxy import __version__
from proxy.config import SECTIONS, CacheOptions, Share, UpstreamOptions, load
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")


def pins(lock: str) -> dict[str, str]:
    """Version by name."""
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def required(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~ ;\[]", each)[0] for each in requirements}


# The locks


def test_the_locks_hold_what_the_project_asks_for() -> None:
    project = PROJECT["project"]
    assert required(project["dependencies"]) <= pins("requirements.lock").keys()
    for extra in ("test", "bench"):
        assert required(project["optional-dependencies"][extra]) <= pins("requirements-dev.lock").keys()
    assert required(PROJECT["dependency-groups"]["build"]) == pins("requirements-build.lock").keys()
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


def test_what_is_tested_is_what_runs() -> None:
    tested = pins("requirements-dev.lock")
    for lock in LOCKS:
        assert pins(lock).items() <= tested.items()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_hashed_names_no_index_and_says_how_it_is_renewed(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "make lock" in text.splitlines()[1]
    assert not re.search(r"--(extra-)?index-url|--find-links|://", text)
    for block in re.split(r"\n(?=[a-z])", text)[1:]:
        assert "--hash=sha256:" in block


def test_each_dependency_has_a_reason_beside_it() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for requirement in PROJECT["project"]["dependencies"]:
        above = lines[lines.index(f'    "{requirement}",') - 1]
        assert above.startswith("    # ")


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without the network, from a copy so that nothing is left in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "proxy", source / "proxy", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    expected = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "proxy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        information = f"pullthrough-{__version__}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{information}/METADATA").decode())
        commands = archive.read(f"{information}/entry_points.txt").decode()
    assert (metadata["Name"], metadata["Version"]) == ("pullthrough", __version__)
    assert (metadata["License-Expression"], metadata["Requires-Python"]) == ("Apache-2.0", ">=3.11")
    assert "pullthrough = proxy.cli:main" in commands


# The documents


def test_the_changelog_knows_this_version() -> None:
    assert re.search(rf"^## \[{re.escape(__version__)}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_readme_names_settings_that_exist() -> None:
    classes = {**SECTIONS, "upstream": UpstreamOptions}
    known = {f"PULLTHROUGH_{name}__{each.name}".upper() for name, cls in classes.items() for each in fields(cls)}
    named = set(re.findall(r"PULLTHROUGH_[A-Z]+__[A-Z_]+", (ROOT / "README.md").read_text()))
    assert named
    assert named <= known


async def test_the_readme_lists_the_metrics_that_exist(hub: FakeHub, tmp_path: Path) -> None:
    room = CacheOptions(directory=tmp_path / "cache", max_size=Share(2**30))
    async with CacheRig(hub.url, tmp_path / "cache", options={"cache": room}) as cache:
        exposed, _ = cache.app.metrics.exposition("text/plain")
    known = set(re.findall(r"^# TYPE (pullthrough_\w+)", exposed.decode(), re.MULTILINE))
    listed = set(re.findall(r"^\| `(pullthrough_\w+)`", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert listed == known


def test_the_readme_s_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r"^\s*make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"run", "test"} <= commands <= targets


# CI


def test_the_script_of_ci_is_sound_and_runs_the_readme_s_commands() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text()
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in text
    assert "make lint types" in text
    assert "PULLTHROUGH_REQUIRE_CLIENTS=1 make test" in text
    subprocess.run(["bash", "-n", str(script)], check=True)


# The image


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as instructions with their arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def of_kind(*kinds: str) -> list[str]:
    return [rest for word, rest in instructions() if word in kinds]


def test_the_image_has_two_stages_of_one_base() -> None:
    assert of_kind("FROM") == ["${BASE} AS build", "${BASE}"]


@pytest.mark.parametrize("kind", ["RUN", "ENTRYPOINT", "CMD", "VOLUME"])
def test_the_image_needs_no_shell(kind: str) -> None:
    assert of_kind(kind)
    for argument in of_kind(kind):
        command = json.loads(argument)
        assert not {"sh", "bash", "/bin/sh", "/bin/bash"} & set(command)


def test_the_image_runs_as_a_numeric_user_who_is_not_root() -> None:
    (user,) = of_kind("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)


def test_the_image_keeps_the_cache_in_its_volume_which_belongs_to_its_user() -> None:
    (volume,) = json.loads(of_kind("VOLUME")[0])
    uid, _, gid = of_kind("USER")[0].partition(":")
    assert ["install", "-d", "-m", "0700", "-o", uid, "-g", gid, volume] in [
        json.loads(each) for each in of_kind("RUN")
    ]

    environ = dict(re.findall(r"(PULLTHROUGH_\w+)=(\S+)", " ".join(of_kind("ENV"))))
    assert str(load(None, environ).cache.directory) == volume


def test_the_image_is_watched_by_its_own_healthcheck() -> None:
    (check,) = of_kind("HEALTHCHECK")
    assert json.loads(check.partition(" CMD ")[2]) == ["pullthrough", "healthcheck"]


def test_the_image_installs_nothing_that_is_not_pinned() -> None:
    for command in (json.loads(each) for each in of_kind("RUN")):
        if "pip" in command:
            assert {"--require-hashes", "--no-index"} & set(command)


def test_the_image_is_built_from_files_that_are_sent() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [name for each in of_kind("COPY") if "--from" not in each for name in each.split()[:-1]]
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored
