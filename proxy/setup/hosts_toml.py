"""What reads `hosts.toml` or is made into one: containerd, nerdctl, kind's nodes, k3s; dockerd has a part of it too.

All of them say `?ns=` with each request, so the root of the cache serves every upstream.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from proxy.setup.guide import MARK, Cache, Part, Setup, Way

CERTS: Final = "/etc/containerd/certs.d"
_CLUSTER: Final = "kind-pullthrough.yaml"


def hosts_toml(cache: Cache) -> str:
    """The same for every upstream. Without `server`, the registry itself is asked where the cache has no answer."""
    # Not "referrers": containerd 1.6 refuses a file with a capability that it does not know.
    return f'{MARK}\n\n[host."{cache.url}"]\n  capabilities = ["pull", "resolve"]\n'


def hosts_parts(cache: Cache, folder: str, upstreams: Iterable[str], way: Way, about: str = "") -> tuple[Part, ...]:
    """One file an upstream."""
    content = hosts_toml(cache)
    return tuple(Part(path=f"{folder}/{name}/hosts.toml", content=content, way=way, about=about) for name in upstreams)


def containerd(cache: Cache) -> Setup:
    """containerd and nerdctl, and with them the nodes of a Kubernetes cluster."""
    return Setup(
        client="containerd",
        url=str(cache.url),
        parts=hosts_parts(cache, CERTS, cache.upstreams, Way.REPLACE),
        restart=None,
        check=f"ctr images pull --hosts-dir {CERTS} {cache.example()}",
        notes=(
            "These files are read at every pull; nothing needs a restart.",
            f'Kubernetes (CRI) looks there only where /etc/containerd/config.toml has config_path = "{CERTS}"'
            ' below [plugins."io.containerd.grpc.v1.cri".registry], or in containerd 2 below'
            ' [plugins."io.containerd.cri.v1.images".registry]. After adding it: systemctl restart containerd',
            *cache.notes(f'add a line ca = "{CERTS}/ca.crt" to each file, and put it there.'),
        ),
    )


def kind(cache: Cache) -> Setup:
    """The nodes of kind are containers, into which a folder is mounted."""
    cluster = "\n".join(
        [
            "kind: Cluster",
            "apiVersion: kind.x-k8s.io/v1alpha4",
            "containerdConfigPatches:",
            "  - |-",
            '    [plugins."io.containerd.grpc.v1.cri".registry]',
            f'      config_path = "{CERTS}"',
            "nodes:",
            "  - role: control-plane",
            "    extraMounts:",
            "      - hostPath: ./certs.d",
            f"        containerPath: {CERTS}",
            "        readOnly: true",
            "",
        ]
    )
    about = "in the folder where you call kind; every further node needs the same extraMounts"
    return Setup(
        client="kind",
        url=str(cache.url),
        parts=(
            Part(path=_CLUSTER, content=cluster, way=Way.BY_HAND, about=about),
            *hosts_parts(cache, "certs.d", cache.upstreams, Way.BY_HAND),
        ),
        restart=f"kind create cluster --config {_CLUSTER}",
        check=f"docker exec kind-control-plane crictl pull {cache.example()}",
        notes=cache.notes(
            f'put its ca.crt into certs.d, and add a line ca = "{CERTS}/ca.crt" to each hosts.toml.', elsewhere=True
        ),
    )


def k3s(cache: Cache) -> Setup:
    """k3s makes its own hosts.toml of this file; RKE2 reads the same one at another place."""
    lines = [MARK, "mirrors:"]
    for name in cache.upstreams:
        lines += [f"  {json.dumps(name)}:", "    endpoint:", f"      - {json.dumps(str(cache.url))}"]
    return Setup(
        client="k3s",
        url=str(cache.url),
        parts=(
            Part(
                path="/etc/rancher/k3s/registries.yaml",
                content="\n".join([*lines, ""]),
                way=Way.OURS_ONLY,
                about="on every node",
            ),
        ),
        restart="systemctl restart k3s",
        check=f"k3s crictl pull {cache.example()}",
        notes=(
            "On agents: systemctl restart k3s-agent",
            "RKE2: the same file at /etc/rancher/rke2/registries.yaml, and systemctl restart rke2-server or rke2-agent",
            *cache.notes(
                "add to the file"
                f' configs: {{{json.dumps(cache.url.registry)}: {{tls: {{ca_file: "/etc/rancher/k3s/ca.crt"}}}}}}'
            ),
        ),
    )
