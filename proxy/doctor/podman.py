"""Podman, Buildah and CRI-O on this machine: registries.conf and the folder beside it (PROTOCOL 5.4)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from proxy.doctor.case import Case
from proxy.doctor.docker import shown
from proxy.doctor.findings import Finding, skipped
from proxy.doctor.hosts import Place, same_place
from proxy.doctor.judge.clients import Mirror, Podman, judge_podman
from proxy.doctor.settings import Table, UnreadableError, installed, read_toml, tables
from proxy.doctor.threads import in_thread
from proxy.oci.names import DOCKER_HUB

_FILE: Final = "containers/registries.conf"


async def check_podman(case: Case) -> Finding:
    """Whether Podman is set up for this cache."""
    root, place = case.root, case.cache.place
    if root is None:
        return skipped("left out, as was asked")
    if place is None or not case.has_docker_hub:
        return skipped("Docker Hub is no upstream here" if place else "the address of the cache is not known")
    found = await in_thread(lambda: _read(root, case.home, place))
    return judge_podman(found, str(place))


def _read(root: Path, home: Path | None, place: Place) -> Podman:
    """What is in files. Blocks."""
    if not installed(root, "podman", "buildah", "crio"):
        return Podman(installed=False)
    path = _file(root, home)
    registry: Table = {}
    try:
        for each in (path, *_drop_ins(root, home)):
            for entry in tables((read_toml(each) or {}).get("registry")):
                if entry.get("prefix", entry.get("location")) == DOCKER_HUB:
                    path, registry = each, entry
    except UnreadableError as error:
        return Podman(file=error.found.path, unreadable=error.found)
    return Podman(file=str(path), mirrors=[_mirror(each, place) for each in tables(registry.get("mirror"))])


def _file(root: Path, home: Path | None) -> Path:
    """A user's own file takes the place of the system's."""
    own = home / ".config" / _FILE if home else None
    return own if own is not None and own.exists() else root / "etc" / _FILE


def _drop_ins(root: Path, home: Path | None) -> list[Path]:
    """In the order in which they are laid over the file; the last that speaks of a registry wins."""
    folders = [root / "etc" / f"{_FILE}.d", *([home / ".config" / f"{_FILE}.d"] if home else [])]
    return [path for folder in folders for path in sorted(folder.glob("*.conf"))]


def _mirror(entry: Table, place: Place) -> Mirror:
    location = entry.get("location")
    found = Place.parse(location) if isinstance(location, str) else None
    ours = found is not None and found.path in ("", DOCKER_HUB) and same_place(found, place)
    return Mirror(shown(str(location)), ours, insecure=entry.get("insecure") is True)
