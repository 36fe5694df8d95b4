"""Who asked for a counted pull, and why it was needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

Need = Literal["changed", "cold", "begun"]
"""Something older is held; nothing is; nothing, but an index that names it was just fetched."""

Why = Literal["new", "changed", "digest", "gone"]
"""The tag was not known; it points elsewhere now; asked for by digest; fetched before and not held any more."""

_KINDS: Final = {
    "docker": "docker",
    "moby": "docker",
    "containerd": "containerd",
    "nerdctl": "nerdctl",
    "buildkit": "buildkit",
    "libpod": "podman",
    "podman": "podman",
    "skopeo": "skopeo",
    "buildah": "buildah",
    "cri-o": "cri-o",
    "containers": "containers-image",
    "crane": "crane",
    "go-containerregistry": "crane",
    "kaniko": "kaniko",
    "cosign": "cosign",
    "regclient": "regclient",
    "oras": "oras",
    "helm": "helm",
    "pullthrough": "pullthrough",
    "curl": "curl",
}
"""The first word of a User-Agent (PROTOCOL 4.6, 5), and what we call such a client."""

OTHER_AGENT: Final = "other"
AGENTS: Final = frozenset({*_KINDS.values(), OTHER_AGENT})
_LONGEST: Final = max(map(len, _KINDS))


class Asker(NamedTuple):
    """Who asks, as far as an open listener can know: an address, and a kind of client of AGENTS."""

    address: str
    agent: str = OTHER_AGENT


NOBODY: Final = Asker("-")
"""Nobody in particular: we ask ourselves."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a counted pull is for."""

    asker: Asker
    why: Why
    need: Need = "cold"


UNKNOWN_PURPOSE: Final = Purpose(NOBODY, "digest")


def agent_kind(user_agent: str) -> str:
    """The kind of client that sends this User-Agent; never anything that a client could make up."""
    return _KINDS.get(user_agent[: _LONGEST + 1].partition("/")[0].lower(), OTHER_AGENT)
