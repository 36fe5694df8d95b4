"""dockerd: `registry-mirrors`, which it uses for Docker Hub alone, and `hosts.toml` for the rest where it reads that.

`registry-mirrors` has neither `?ns=` in every engine nor a path before Engine 29 (which an older one refuses to start
with): it is used only where the root of the cache is Docker Hub.
"""

from __future__ import annotations

from typing import Final

from proxy.oci.names import DOCKER_HUB
from proxy.setup.daemon_json import fresh
from proxy.setup.guide import Cache, Part, Setup, Way
from proxy.setup.hosts_toml import hosts_parts

DAEMON_JSON: Final = "/etc/docker/daemon.json"
_SHOW_MIRRORS: Final = "docker info --format '{{.RegistryConfig.Mirrors}}' && "
_CERTS: Final = "/etc/docker/certs.d"
_ENGINE_29: Final = "read by Engine 29 and later with the containerd image store"


def dockerd(cache: Cache) -> Setup:
    """The daemon and `docker build` in it."""
    mirror = Part(
        path=DAEMON_JSON,
        content=fresh(str(cache.url)),
        way=Way.MERGE,
        about="keep what is there and add this key; used for Docker Hub only",
    )
    others = [name for name in cache.upstreams if name != DOCKER_HUB or not cache.serves_hub_at_root]
    return Setup(
        client="dockerd",
        url=str(cache.url),
        parts=(
            *((mirror,) if cache.serves_hub_at_root else ()),
            *hosts_parts(cache, _CERTS, others, Way.REPLACE, _ENGINE_29),
        ),
        restart="systemctl reload docker",
        check=f"{_SHOW_MIRRORS if cache.serves_hub_at_root else ''}docker pull {cache.example()}",
        notes=(*_notes(cache, others), *cache.notes(_trust(cache))),
    )


def _trust(cache: Cache) -> str:
    """The image store of containerd looks below the name of the registry, and only in hosts.toml (PROTOCOL 4.1)."""
    return (
        f"put its ca.crt into {_CERTS}/{cache.url.registry}/. Engine 29 and later with the containerd image store wants"
        " it among the system's (update-ca-certificates) for registry-mirrors, and named in each hosts.toml by a line"
        f' ca = "{_CERTS}/{cache.url.registry}/ca.crt". Then restart dockerd.'
    )


def _notes(cache: Cache, others: list[str]) -> list[str]:
    example = next((place for name, place in cache.places().items() if name in others), None)
    notes = ["A reload keeps the containers running. Without systemd: kill -HUP $(pidof dockerd)"]
    if cache.serves_hub_at_root:
        notes.append(
            "dockerd must not be started with --registry-mirror as well: it refuses to have it twice."
            " Rootless: ~/.config/docker/daemon.json"
        )
        if cache.url.is_plain:
            notes.append("An http mirror needs no insecure-registries.")
    elif DOCKER_HUB in cache.upstreams:
        notes.append(
            f"registry-mirrors of daemon.json cannot be used, as the cache's first upstream is {cache.upstreams[0]}."
            f" Make that {DOCKER_HUB}, and engines before 29 can use the cache too."
        )
    else:
        notes.append(f"registry-mirrors of daemon.json is for {DOCKER_HUB} only, which is no upstream of this cache.")
    if example is not None:
        insecure = f", with {cache.url.registry} in insecure-registries" if cache.url.is_plain else ""
        notes.append(
            "Engines before 29 have mirrors for Docker Hub only: for others name the cache in the image, such as"
            f" {example}/OWNER/IMAGE{insecure}."
        )
    return notes
