"""The values of this room: the cache as a client sees it, and what a client is told about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from proxy.oci.names import DOCKER_HUB
from proxy.setup.address import CacheUrl

MARK: Final = "# Made by `pullthrough setup`, which replaces this file when it runs again."
"""The first line of the files that are ours."""

_KNOWN_IMAGE: Final = "library/alpine:latest"


class Way(Enum):
    """How a part gets to its place."""

    MERGE = "one key of a file that belongs to somebody else"
    REPLACE = "the whole file, where it is absent, ours, or given up by force"
    OURS_ONLY = "the whole file, where it is absent or ours"
    BY_HAND = "by whoever reads it: there is no file on this machine, or it holds more than we can know"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file. Without a path it is what goes onto a command line."""

    path: str | None
    content: str
    way: Way
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Everything that one client needs. `restart` is the command that makes it look, if it needs one."""

    client: str
    url: str
    parts: tuple[Part, ...]
    restart: str | None
    check: str
    notes: tuple[str, ...] = ()

    @property
    def can_be_written(self) -> bool:
        """Whether all of it has a place on this machine."""
        return bool(self.parts) and all(part.way is not Way.BY_HAND for part in self.parts)


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache and the names of its upstreams, of which the first is the default one."""

    url: CacheUrl
    upstreams: tuple[str, ...]

    @property
    def serves_hub_at_root(self) -> bool:
        """Whether a client that can name no upstream gets Docker Hub."""
        return self.upstreams[:1] == (DOCKER_HUB,)

    def places(self) -> dict[str, str]:
        """Where each upstream's repositories are, for clients that put one name in the place of another.

        Upstreams with a port in their name are missing, but for the default one: no image can be called so.
        """
        first = {name: self.url.registry for name in self.upstreams[:1]}
        return first | {name: f"{self.url.registry}/{name}" for name in self.upstreams[1:] if ":" not in name}

    def unplaced_note(self) -> tuple[str, ...]:
        """Which upstreams have no place, if any."""
        missing = [name for name in self.upstreams if name not in self.places()]
        return (f"Not through the cache, because of the port in the name: {', '.join(missing)}.",) if missing else ()

    def example(self) -> str:
        """An image to try it with."""
        if DOCKER_HUB in self.upstreams:
            return f"{DOCKER_HUB}/{_KNOWN_IMAGE}"
        return f"{self.upstreams[0]}/OWNER/IMAGE"

    def notes(self, trust: str, *, elsewhere: bool = False) -> tuple[str, ...]:
        """What is worth saying of the address; `elsewhere` is a client that never runs on the machine of the cache.

        `trust` is what makes the client trust an authority, given its certificate as `ca.crt`.
        """
        notes = []
        if self.url.is_loopback and elsewhere:
            notes.append(
                f"{self.url.host} is the client itself there, not the cache: put a name or an address that the client"
                " can reach in its place."
            )
        elif self.url.is_loopback:
            notes.append(f"{self.url.host} is right on the machine of the cache only.")
        if not self.url.is_plain:
            notes.append(
                f"The client must trust the certificate of the cache. If that is of an authority of your own: {trust}"
            )
        return tuple(notes)
