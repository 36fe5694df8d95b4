"""What the settings of dockerd, containerd and Podman on this machine mean.

A client that is installed and does not ask this cache goes to Docker Hub on a quota of its own, and nobody notices: so
that is a failure, with the lines that mend it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from proxy.doctor.findings import Finding, failed, ok, skipped


@dataclass(frozen=True, slots=True)
class Mirror:
    """A place that a client asks before Docker Hub; `ours` if that is this cache."""

    url: str
    ours: bool
    insecure: bool = False
    """Whether Podman may use plain http there."""
    lacks: tuple[str, ...] = ()
    """What containerd may not ask it for."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that is there and cannot be used."""

    path: str
    reason: str
    broken: bool
    """Whether it was read, and makes no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """dockerd: what daemon.json says, and what the running daemon says."""

    installed: bool = True
    file: str = "/etc/docker/daemon.json"
    unreadable: Unreadable | None = None
    configured: Sequence[Mirror] = ()
    active: Sequence[Mirror] | None = None
    """None if the daemon could not be asked, for the reason in `silent`."""
    silent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Containerd:
    """containerd: what its hosts.toml and config.toml say."""

    installed: bool = True
    only_for_docker: bool = False
    """Whether dockerd is here, which brings it along."""
    file: str = "/etc/containerd/certs.d/docker.io/hosts.toml"
    unreadable: Unreadable | None = None
    mirrors: Sequence[Mirror] = ()
    reads_hosts: bool = True
    """Whether Kubernetes' side of it (CRI) looks into that folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Podman:
    """Podman, Buildah and CRI-O: what registries.conf says of docker.io."""

    installed: bool = True
    file: str = "/etc/containers/registries.conf"
    unreadable: Unreadable | None = None
    mirrors: Sequence[Mirror] = field(default=())


NOT_INSTALLED: Final = skipped("not installed here")


def judge_docker(found: Docker, url: str) -> Finding:
    """Whether dockerd pulls through the cache at `url`."""
    if not found.installed:
        return NOT_INSTALLED
    if found.unreadable is not None and found.unreadable.broken:
        return failed(
            f"{found.unreadable.path} is broken: {found.unreadable.reason}",
            "Correct it there: dockerd does not start with it. This checks it:\n    dockerd --validate",
        )
    if found.active is not None:
        return _active(found, found.active, url)
    if _ours(found.configured):
        return ok(f"{found.file} names this cache{_order(found.configured)}; {found.silent}")
    if found.unreadable is not None:
        return skipped(f"{found.unreadable.path} cannot be read ({found.unreadable.reason}): run this as root")
    return failed(f"dockerd goes past this cache: {found.file} does not name it{_others(found.configured)}", _mend(url))


def _active(found: Docker, active: Sequence[Mirror], url: str) -> Finding:
    if _ours(active):
        return ok(f"dockerd asks this cache{_order(active)}")
    if _ours(found.configured):
        return failed(
            f"{found.file} names this cache, but the running dockerd does not: it has not been restarted since",
            "Restart it (containers stop, unless live-restore is on):\n    systemctl restart docker",
        )
    return failed(f"dockerd goes past this cache: its mirrors do not name it{_others(active)}", _mend(url))


def _mend(url: str) -> str:
    return (
        f'Put this into /etc/docker/daemon.json, and restart dockerd:\n    {{"registry-mirrors": ["{url}"]}}\n'
        f"which is what this prints:\n    pullthrough setup dockerd --url {url}"
    )


def judge_containerd(found: Containerd, url: str) -> Finding:
    """Whether containerd pulls through the cache at `url`."""
    if not found.installed:
        return NOT_INSTALLED
    if found.unreadable is not None:
        return _unreadable(found.unreadable, "containerd passes it over, and goes past this cache.")
    helps = f"This prints it:\n    pullthrough setup containerd --url {url}"
    if not found.mirrors and found.only_for_docker:
        return skipped(f"no {found.file}; dockerd brought it along, and does not read that")
    ours = next((each for each in found.mirrors if each.ours), None)
    if ours is None:
        return failed(
            f"containerd goes past this cache: {found.file} does not name it{_others(found.mirrors)}",
            f'{found.file} needs [host."{url}"] with capabilities = ["pull", "resolve"]. {helps}',
        )
    if ours.lacks:
        return failed(
            f"{found.file} lets containerd ask this cache for some things only: {' and '.join(ours.lacks)} is missing",
            f'Write capabilities = ["pull", "resolve"] below [host."{ours.url}"].',
        )
    if not found.reads_hosts:
        return failed(
            f"{found.file} names this cache, but config.toml has no config_path: Kubernetes (CRI) does not look there",
            'Set config_path = "/etc/containerd/certs.d" below [plugins."io.containerd.grpc.v1.cri".registry], and '
            "restart containerd.",
        )
    return ok(f"{found.file} names this cache{_order(found.mirrors)}")


def judge_podman(found: Podman, url: str) -> Finding:
    """Whether Podman and its relatives pull through the cache at `url`."""
    if not found.installed:
        return NOT_INSTALLED
    if found.unreadable is not None:
        return _unreadable(found.unreadable, "No image can be pulled with it.")
    ours = next((each for each in found.mirrors if each.ours), None)
    place = url.partition("://")[2]
    if ours is None:
        return failed(
            f"podman goes past this cache: no [[registry.mirror]] of docker.io names it{_others(found.mirrors)}",
            f'{found.file} needs [[registry]] prefix = "docker.io" with [[registry.mirror]] location = "{place}"'
            f"{', insecure = true' if url.startswith('http:') else ''}. "
            f"This prints it:\n    pullthrough setup podman --url {url}",
        )
    if url.startswith("http:") and not ours.insecure:
        return failed(
            f"the mirror {ours.url} is asked by https alone, and this cache speaks http",
            f"Write insecure = true below its location in {found.file}.",
        )
    return ok(f"{found.file} names this cache{_order(found.mirrors)}")


def _unreadable(found: Unreadable, effect: str) -> Finding:
    if found.broken:
        return failed(f"{found.path} is broken: {found.reason}", f"Correct it there. {effect}")
    return skipped(f"{found.path} cannot be read ({found.reason}): run this as root")


def _ours(mirrors: Sequence[Mirror]) -> bool:
    return any(each.ours for each in mirrors)


def _order(mirrors: Sequence[Mirror]) -> str:
    return "" if mirrors[0].ours else f", after {mirrors[0].url}"


def _others(mirrors: Sequence[Mirror]) -> str:
    return f" (only {', '.join(each.url for each in mirrors)})" if mirrors else ""
