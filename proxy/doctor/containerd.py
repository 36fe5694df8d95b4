"""containerd on this machine: hosts.toml and config.toml (PROTOCOL 5.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from proxy.doctor.case import Case
from proxy.doctor.docker import shown
from proxy.doctor.findings import Finding, skipped
from proxy.doctor.hosts import Place, same_place
from proxy.doctor.judge.clients import Containerd, Mirror, judge_containerd
from proxy.doctor.settings import Table, UnreadableError, installed, read_toml, table, texts
from proxy.doctor.threads import in_thread

_CERTS: Final = "/etc/containerd/certs.d"
_CRI: Final = ("io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri", "cri")
_NEEDED: Final = ("pull", "resolve")
_KNOWS_THE_FOLDER: Final = 3
"""From this version of the format on, containerd may look into its own folder unasked."""


async def check_containerd(case: Case) -> Finding:
    """Whether containerd is set up for this cache."""
    root, place = case.root, case.cache.place
    if root is None:
        return skipped("left out, as was asked")
    if place is None or not case.has_docker_hub:
        return skipped("Docker Hub is no upstream here" if place else "the address of the cache is not known")
    found = await in_thread(lambda: _read(root, place))
    return judge_containerd(found, str(place))


def _read(root: Path, place: Place) -> Containerd:
    """What is in files. Blocks."""
    if not installed(root, "containerd", "nerdctl") and not (root / "etc/containerd").is_dir():
        return Containerd(installed=False)
    only_for_docker = installed(root, "dockerd")
    path = root / _CERTS.lstrip("/") / "docker.io" / "hosts.toml"
    try:
        config = read_toml(root / "etc/containerd/config.toml") or {}
        path = _hosts_file(root, _config_path(config))
        mirrors = [*_hosts(read_toml(path) or {}, place), *_legacy(config, place)]
    except UnreadableError as error:
        return Containerd(only_for_docker=only_for_docker, file=str(path), unreadable=error.found)
    reads_hosts = bool(_config_path(config)) or not _cri_needs_path(config) or any(_legacy(config, place))
    return Containerd(only_for_docker=only_for_docker, file=str(path), mirrors=mirrors, reads_hosts=reads_hosts)


def _hosts_file(root: Path, config_path: str) -> Path:
    """The file for docker.io: of the first folder that has one, else where it would go."""
    folders = [root / each.strip("/") for each in (config_path or _CERTS).split(":")]
    named = [folder / name / "hosts.toml" for folder in folders for name in ("docker.io", "_default")]
    return next((path for path in named if path.exists()), named[0])


def _hosts(document: Table, place: Place) -> list[Mirror]:
    found = [_mirror(url, host, place) for url, host in table(document, "host").items()]
    server = document.get("server")
    return [*found, *([_mirror(server, {}, place)] if isinstance(server, str) else [])]


def _mirror(url: str, host: Any, place: Place) -> Mirror:
    allowed = texts(host.get("capabilities")) if isinstance(host, dict) else []
    lacks = tuple(each for each in _NEEDED if allowed and each not in allowed)
    found = Place.parse(url)
    return Mirror(shown(url), found is not None and same_place(found, place), lacks=lacks)


def _legacy(config: Table, place: Place) -> list[Mirror]:
    """The mirrors of config.toml itself, as before certs.d."""
    listed = [table(config, "plugins", name, "registry", "mirrors", "docker.io").get("endpoint") for name in _CRI]
    return [_mirror(url, {}, place) for urls in listed for url in texts(urls)]


def _config_path(config: Table) -> str:
    paths = [table(config, "plugins", name, "registry").get("config_path") for name in _CRI]
    return next((path for path in paths if isinstance(path, str) and path), "")


def _cri_needs_path(config: Table) -> bool:
    """Whether Kubernetes' side runs, and looks into certs.d only when told to."""
    version = config.get("version", 2)
    disabled = not {"cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"}.isdisjoint(
        texts(config.get("disabled_plugins"))
    )
    return isinstance(version, int) and version < _KNOWS_THE_FOLDER and not disabled
