"""podman, Buildah, Skopeo and CRI-O: one library, one drop-in of registries.conf.

They name no upstream with `?ns=` but put the mirror's location in the place of the registry's name.
"""

from __future__ import annotations

import json
from typing import Final

from proxy.setup.guide import MARK, Cache, Part, Setup, Way

DROP_IN: Final = "/etc/containers/registries.conf.d/50-pullthrough.conf"


def podman(cache: Cache) -> Setup:
    """They read it at every start, and have no daemon."""
    return Setup(
        client="podman",
        url=str(cache.url),
        parts=(_drop_in(cache),),
        restart=None,
        check=f"podman pull {cache.example()}",
        notes=(
            "Buildah and Skopeo use it too. Nothing needs a restart.",
            *cache.unplaced_note(),
            *cache.notes(_trust(cache)),
        ),
    )


def crio(cache: Cache) -> Setup:
    """The same file; the daemon reads it again on SIGHUP."""
    return Setup(
        client="crio",
        url=str(cache.url),
        parts=(_drop_in(cache),),
        restart="systemctl reload crio",
        check=f"crictl pull {cache.example()}",
        notes=(*cache.unplaced_note(), *cache.notes(_trust(cache))),
    )


def _trust(cache: Cache) -> str:
    return f"put its ca.crt into /etc/containers/certs.d/{cache.url.registry}/."


def _drop_in(cache: Cache) -> Part:
    lines = [MARK]
    for name, place in cache.places().items():
        lines += [
            "",
            "[[registry]]",
            f"prefix = {json.dumps(name)}",
            f"location = {json.dumps(name)}",
            "",
            "[[registry.mirror]]",
            f"location = {json.dumps(place)}",
            *(["insecure = true"] if cache.url.is_plain else []),
        ]
    return Part(path=DROP_IN, content="\n".join([*lines, ""]), way=Way.REPLACE)
