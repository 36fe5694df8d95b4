"""dockerd on this machine: daemon.json, and what the daemon itself says on its socket (PROTOCOL 4.1)."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any, Final

import aiohttp

from proxy.doctor.case import Case
from proxy.doctor.findings import Finding, skipped
from proxy.doctor.hosts import Place, same_place
from proxy.doctor.judge.clients import Docker, Mirror, Unreadable, judge_docker
from proxy.doctor.settings import UnreadableError, installed, read_json, table, texts
from proxy.doctor.threads import in_thread

_SECONDS: Final = 5.0
_SOCKETS: Final = ("run/docker.sock", "var/run/docker.sock")


class _Silent(Exception):
    """The daemon could not be asked; the message says why."""


async def check_docker(case: Case) -> Finding:
    """Whether dockerd is set up for this cache, and uses it."""
    root, place = case.root, case.cache.place
    if root is None:
        return skipped("left out, as was asked")
    if place is None or not case.has_docker_hub:
        return skipped("mirrors of dockerd are for Docker Hub" if place else "the address of the cache is not known")
    found = await in_thread(lambda: _read(root, place))
    if found.installed and found.unreadable is None:
        found = await _with_active(found, root, place)
    return judge_docker(found, str(place))


def _read(root: Path, place: Place) -> Docker:
    """What is in files. Blocks."""
    path = root / "etc/docker/daemon.json"
    unreadable: Unreadable | None = None
    document = None
    try:
        document = read_json(path)
        mirrors = _listed(path, document)
    except UnreadableError as error:
        unreadable, mirrors = error.found, []
    here = installed(root, "dockerd") or document is not None or unreadable is not None or _socket(root) is not None
    return Docker(
        installed=here, file=str(path), unreadable=unreadable, configured=[_mirror(url, place) for url in mirrors]
    )


def _listed(path: Path, document: Any) -> list[str]:
    mirrors = (document or {}).get("registry-mirrors")
    if mirrors is not None and (not isinstance(mirrors, list) or len(texts(mirrors)) != len(mirrors)):
        raise UnreadableError(path, "registry-mirrors is not a list of strings", broken=True)
    return texts(mirrors)


async def _with_active(found: Docker, root: Path, place: Place) -> Docker:
    """With what the running daemon says, if it can be asked."""
    try:
        listed = await _active(root)
    except _Silent as silent:
        return Docker(file=found.file, configured=found.configured, silent=str(silent))
    active = await in_thread(lambda: [_mirror(url, place) for url in listed])
    return Docker(file=found.file, configured=found.configured, active=active)


async def _active(root: Path) -> list[str]:
    """The mirrors of the running daemon. Raises _Silent."""
    socket = await in_thread(lambda: _socket(root))
    if socket is None:
        raise _Silent("dockerd is not running")
    try:
        async with (
            asyncio.timeout(_SECONDS),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
            session.get("http://docker/info") as response,
        ):
            document = json.loads(await response.read()) if response.status == 200 else None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _Silent(_why(error)) from None
    if not isinstance(document, dict):
        raise _Silent("dockerd did not tell its mirrors")
    return texts(table(document, "RegistryConfig").get("Mirrors"))


def _why(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EACCES, errno.EPERM):
        return "whether dockerd uses it cannot be asked by this user: run this as root, or as one of the group docker"
    if number in (errno.ECONNREFUSED, errno.ENOENT):
        return "dockerd is not running"
    return f"dockerd could not be asked ({os.strerror(number) if number else 'no answer that makes sense'})"


def _socket(root: Path) -> Path | None:
    return next((root / name for name in _SOCKETS if (root / name).is_socket()), None)


def _mirror(url: str, place: Place) -> Mirror:
    """dockerd wants a scheme, and a path only since version 29, which is not ours (PROTOCOL 4.1)."""
    found = Place.parse(url)
    ours = found is not None and found.scheme == place.scheme and not found.path and same_place(found, place)
    return Mirror(shown(url), ours)


def shown(url: str) -> str:
    """A URL of somebody's settings, without what could be a password in it."""
    found = Place.parse(url)
    return str(found) if found is not None and found.scheme else url if "@" not in url else "one with a password"
