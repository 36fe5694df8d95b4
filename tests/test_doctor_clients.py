"""What `doctor` says of dockerd, containerd and Podman, from the files and the socket that they have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.config import Config
from proxy.doctor.case import Case
from proxy.doctor.containerd import check_containerd
from proxy.doctor.docker import check_docker
from proxy.doctor.findings import Finding, State
from proxy.doctor.hosts import Place, same_place
from proxy.doctor.podman import check_podman
from tests.doctor_rig import SetUp, case_of, dockerd, healthy, short, wrong

__all__ = ["healthy", "short"]  # Fixtures: used by their names.

URL = "http://127.0.0.1:5000"


class Machine:
    """A root with files in it, and a cache on this machine that need not run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home: Path | None = None

    def case(self) -> Case:
        case = case_of(Config(), self.root, URL)
        return Case(config=case.config, cache=case.cache, clock=case.clock, canary=None, root=self.root, home=self.home)

    def has(self, *programs: str, **files: str) -> Machine:
        """Install programs, and write files, whose names have `__` for `/`."""
        for program in programs:
            self.write(f"usr/bin/{program}", "")
        return self

    def write(self, path: str, text: str) -> Machine:
        written = self.root / path
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(text)
        return self


@pytest.fixture
def machine(short: Path) -> Machine:
    return Machine(short)


def is_wrong(finding: Finding, text: str, cure: str) -> None:
    assert finding.state is State.FAILED, finding
    assert text in finding.text
    assert cure in (finding.cure or "")


# dockerd


async def test_dockerd_is_not_asked_for_where_there_is_none(machine: Machine) -> None:
    assert (await check_docker(machine.case())).text == "not installed here"


@pytest.mark.parametrize("mirror", [URL, f"{URL}/", "http://localhost:5000"])
async def test_a_daemon_json_with_the_cache_is_well(machine: Machine, mirror: str) -> None:
    machine.has("dockerd").write("etc/docker/daemon.json", f'{{"registry-mirrors": ["{mirror}"], "debug": true}}')
    finding = await check_docker(machine.case())
    assert finding.state is State.OK
    assert finding.text.endswith("names this cache; dockerd is not running")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{}",
        '{"registry-mirrors": []}',
        '{"registry-mirrors": ["https://127.0.0.1:5000"]}',
        '{"registry-mirrors": ["http://127.0.0.1:5001"]}',
        '{"registry-mirrors": ["127.0.0.1:5000"]}',
        '{"registry-mirrors": ["http://192.0.2.1:5000", "nonsense://"]}',
    ],
)
async def test_a_daemon_json_without_the_cache_goes_past_it(machine: Machine, text: str | None) -> None:
    machine.has("dockerd")
    if text is not None:
        machine.write("etc/docker/daemon.json", text)
    is_wrong(await check_docker(machine.case()), "dockerd goes past this cache", f'{{"registry-mirrors": ["{URL}"]}}')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{\n  "debug": true\n  "registry-mirrors": []\n}', "Expecting ',' delimiter (at line 3, column 3)"),
        ('{"registry-mirrors": ["http://a"],}', "(at line 1, column 35)"),
        ("// a comment\n{}", "Expecting value (at line 1, column 1)"),
        ("[]", "it holds no object"),
        ('{"registry-mirrors": "http://127.0.0.1:5000"}', "registry-mirrors is not a list of strings"),
    ],
)
async def test_a_broken_daemon_json_is_named_with_the_place(machine: Machine, text: str, reason: str) -> None:
    machine.has("dockerd").write("etc/docker/daemon.json", text)
    finding = await check_docker(machine.case())
    is_wrong(finding, "etc/docker/daemon.json is broken: ", "dockerd does not start with it")
    assert reason in finding.text


async def test_a_daemon_json_that_is_not_text_is_broken(machine: Machine) -> None:
    machine.has("dockerd").write("etc/docker/daemon.json", "")
    (machine.root / "etc/docker/daemon.json").write_bytes(b"\xff\xfe{")
    is_wrong(await check_docker(machine.case()), "it is not UTF-8 text", "Correct it there")


async def test_a_dockerd_that_was_not_restarted_is_named(machine: Machine) -> None:
    machine.has("dockerd").write("etc/docker/daemon.json", f'{{"registry-mirrors": ["{URL}"]}}')
    async with dockerd(machine.root, lambda: []):
        finding = await check_docker(machine.case())
    is_wrong(finding, "it has not been restarted since", "systemctl restart docker")


async def test_a_dockerd_with_the_mirror_on_its_command_line_is_well(machine: Machine) -> None:
    async with dockerd(machine.root, lambda: ["http://192.0.2.1:5000/", f"{URL}/"]):
        finding = await check_docker(machine.case())
    assert finding.state is State.OK
    assert finding.text == "dockerd asks this cache, after http://192.0.2.1:5000"


async def test_a_running_dockerd_that_goes_past_the_cache_is_named(machine: Machine) -> None:
    async with dockerd(machine.root, lambda: ["https://user:secret@192.0.2.1/"]):
        finding = await check_docker(machine.case())
    is_wrong(finding, "dockerd goes past this cache", "registry-mirrors")
    assert "secret" not in str(finding)


async def test_a_socket_that_nobody_answers_is_no_dockerd(machine: Machine) -> None:
    machine.write("etc/docker/daemon.json", f'{{"registry-mirrors": ["{URL}"]}}')
    async with dockerd(machine.root, lambda: []):
        pass
    finding = await check_docker(machine.case())
    assert finding.text.endswith("dockerd is not running")


async def test_a_mirror_that_is_bypassed_is_named_in_the_whole(healthy: SetUp) -> None:
    healthy.daemon_json("http://192.0.2.1:5000")
    (healthy.root / "run/docker.sock").unlink()
    found = await healthy.examine()
    assert list(wrong(found)) == ["dockerd"]
    assert "goes past this cache" in wrong(found)["dockerd"]
    assert f'{{"registry-mirrors": ["{healthy.cache.url}"]}}' in (found["dockerd"].cure or "")


async def test_a_broken_daemon_json_is_named_in_the_whole(healthy: SetUp) -> None:
    healthy.write("etc/docker/daemon.json", '{"registry-mirrors": [')
    found = await healthy.examine()
    assert list(wrong(found)) == ["dockerd"]
    assert "line 1, column 23" in wrong(found)["dockerd"]


# containerd

HOSTS = f'server = "https://registry-1.docker.io"\n[host."{URL}"]\n  capabilities = ["pull", "resolve"]\n'
CONFIG = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/containerd/certs.d"\n'
HOSTS_FILE = "etc/containerd/certs.d/docker.io/hosts.toml"
CONFIG_FILE = "etc/containerd/config.toml"


async def test_containerd_with_the_cache_in_hosts_toml_is_well(machine: Machine) -> None:
    machine.has("containerd").write(HOSTS_FILE, HOSTS).write(CONFIG_FILE, CONFIG)
    finding = await check_containerd(machine.case())
    assert finding.state is State.OK, finding
    assert finding.text.endswith("hosts.toml names this cache")


@pytest.mark.parametrize(
    ("files", "text", "cure"),
    [
        ({}, "containerd goes past this cache", f'[host."{URL}"]'),
        ({HOSTS_FILE: 'server = "https://registry-1.docker.io"\n'}, "goes past this cache", f'[host."{URL}"]'),
        ({HOSTS_FILE: HOSTS.replace('"pull", ', "")}, "pull is missing", "capabilities = "),
        ({HOSTS_FILE: HOSTS, CONFIG_FILE: "version = 2\n"}, "has no config_path", "Set config_path"),
        ({HOSTS_FILE: "[host.\n"}, "hosts.toml is broken: ", "Correct it there"),
        ({CONFIG_FILE: "version = \n"}, "config.toml is broken: ", "Correct it there"),
    ],
)
async def test_what_is_wrong_with_containerd_is_named(
    machine: Machine, files: dict[str, str], text: str, cure: str
) -> None:
    machine.has("containerd")
    for path, content in files.items():
        machine.write(path, content)
    is_wrong(await check_containerd(machine.case()), text, cure)


@pytest.mark.parametrize(
    "config",
    [
        '[plugins."io.containerd.cri.v1.images".registry]\nconfig_path = "/other:/etc/containerd/certs.d"\n',
        'version = 2\ndisabled_plugins = ["cri"]\n',
        "version = 3\n",
    ],
)
async def test_containerd_s_ways_of_reading_hosts_toml_are_known(machine: Machine, config: str) -> None:
    machine.has("containerd").write(HOSTS_FILE, HOSTS).write(CONFIG_FILE, config)
    assert (await check_containerd(machine.case())).state is State.OK


async def test_containerd_s_old_way_of_naming_mirrors_is_known(machine: Machine) -> None:
    mirrors = f'[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\nendpoint = ["{URL}"]\n'
    machine.has("containerd").write(CONFIG_FILE, f"version = 2\n{mirrors}")
    assert (await check_containerd(machine.case())).state is State.OK


async def test_a_containerd_that_dockerd_brought_along_is_left_alone(machine: Machine) -> None:
    machine.has("containerd", "dockerd")
    assert (await check_containerd(machine.case())).state is State.SKIPPED
    assert (await check_containerd(Machine(machine.root / "empty").case())).text == "not installed here"


# Podman

REGISTRY = '[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n[[registry.mirror]]\n'
MIRROR = f'{REGISTRY}location = "127.0.0.1:5000"\ninsecure = true\n'
REGISTRIES_FILE = "etc/containers/registries.conf"


@pytest.mark.parametrize("path", [REGISTRIES_FILE, f"{REGISTRIES_FILE}.d/50-cache.conf"])
@pytest.mark.parametrize("location", ["127.0.0.1:5000", "localhost:5000/docker.io"])
async def test_podman_with_the_cache_as_mirror_is_well(machine: Machine, path: str, location: str) -> None:
    machine.has("podman").write(path, MIRROR.replace("127.0.0.1:5000", location))
    finding = await check_podman(machine.case())
    assert finding.state is State.OK, finding
    assert finding.text == f"{machine.root / path} names this cache"


@pytest.mark.parametrize(
    ("text", "problem", "cure"),
    [
        ("", "podman goes past this cache", 'location = "127.0.0.1:5000", insecure = true'),
        (MIRROR.replace(":5000", ":5001"), "(only 127.0.0.1:5001)", "[[registry.mirror]]"),
        (MIRROR.replace("docker.io", "quay.io"), "podman goes past this cache", "[[registry.mirror]]"),
        (MIRROR.replace("insecure = true", ""), "asked by https alone", "Write insecure = true"),
        (MIRROR.replace(':5000"', ':5000/other"'), "podman goes past this cache", "[[registry.mirror]]"),
        ("[[registry]\n", "registries.conf is broken: ", "Correct it there"),
        ("registry = 3\n", "podman goes past this cache", "[[registry.mirror]]"),
    ],
)
async def test_what_is_wrong_with_podman_is_named(machine: Machine, text: str, problem: str, cure: str) -> None:
    machine.has("podman").write(REGISTRIES_FILE, text)
    is_wrong(await check_podman(machine.case()), problem, cure)


async def test_the_last_file_that_speaks_of_docker_hub_wins(machine: Machine) -> None:
    other = MIRROR.replace(":5000", ":5001")
    machine.has("podman").write(REGISTRIES_FILE, MIRROR).write(f"{REGISTRIES_FILE}.d/90-other.conf", other)
    is_wrong(await check_podman(machine.case()), "goes past this cache", "90-other.conf")


async def test_a_user_s_own_file_takes_the_place_of_the_system_s(machine: Machine) -> None:
    machine.has("podman").write(REGISTRIES_FILE, MIRROR).write("home/.config/containers/registries.conf", "")
    machine.home = machine.root / "home"
    is_wrong(await check_podman(machine.case()), "goes past this cache", "home/.config/containers/registries.conf")


# All of them


@pytest.mark.parametrize("check", [check_docker, check_containerd, check_podman])
async def test_clients_are_left_alone_when_asked(check: Any) -> None:
    assert (await check(case_of(Config(), None, URL))).text == "left out, as was asked"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://localhost:5000", "http://127.0.0.1:5000", True),
        ("http://0.0.0.0:5000", "http://127.0.0.1:5000", True),
        ("http://cache.invalid:5000", "http://cache.invalid:5000", True),
        ("http://cache.invalid:5000", "http://127.0.0.1:5000", False),
        ("http://localhost:5000", "http://127.0.0.1:5001", False),
        ("http://192.0.2.1:5000", "http://127.0.0.1:5000", False),
        ("http://[::1]:5000", "http://127.0.0.1:5000", True),
        ("localhost", "https://localhost", True),
    ],
)
def test_places_are_the_same_where_they_lead_to_the_same_listener(one: str, other: str, same: bool) -> None:
    first, second = Place.parse(one), Place.parse(other)
    assert first and second
    assert same_place(first, second) is same


@pytest.mark.parametrize("text", ["", "http://", "ftp://cache", "http://cache:99999", "http://[::", "unix:///run/x"])
def test_what_is_no_place_is_none(text: str) -> None:
    assert Place.parse(text) is None
