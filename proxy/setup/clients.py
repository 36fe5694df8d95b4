"""The clients we know, in the order in which they are listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.setup.buildkit import buildkit, github_actions
from proxy.setup.ci import gitlab_runner, kaniko
from proxy.setup.dockerd import dockerd
from proxy.setup.errors import UnknownClient
from proxy.setup.guide import Cache, Setup
from proxy.setup.hosts_toml import containerd, k3s, kind
from proxy.setup.registries_conf import crio, podman


@dataclass(frozen=True, slots=True)
class Client:
    """What it is, in one line, and how it is set up."""

    name: str
    summary: str
    make: Callable[[Cache], Setup]


CLIENTS: Final[Mapping[str, Client]] = {
    client.name: client
    for client in (
        Client(
            "dockerd", "Docker Engine: registry-mirrors in daemon.json; other registries from Engine 29 on", dockerd
        ),
        Client("containerd", "containerd, nerdctl and Kubernetes nodes: a hosts.toml for every registry", containerd),
        Client("podman", "Podman, Buildah and Skopeo: a drop-in of registries.conf", podman),
        Client("buildkit", "buildkitd and builders of docker buildx: buildkitd.toml", buildkit),
        Client("k3s", "k3s and RKE2: registries.yaml", k3s),
        Client("kind", "Kubernetes in Docker: a cluster configuration with certs.d mounted", kind),
        Client("crio", "CRI-O: a drop-in of registries.conf", crio),
        Client("kaniko", "kaniko: flags or environment of the executor", kaniko),
        Client(
            "github-actions",
            "GitHub Actions: steps for the runner's Docker and for setup-buildx-action",
            github_actions,
        ),
        Client("gitlab-runner", "GitLab runners: docker:dind and kaniko by config.toml", gitlab_runner),
    )
}


def find_client(name: str) -> Client:
    """Raises UnknownClient, whose message lists the known ones and does not repeat the name."""
    found = CLIENTS.get(name)
    if found is None:
        raise UnknownClient(f"no such client is known; known are: {', '.join(CLIENTS)}")
    return found
