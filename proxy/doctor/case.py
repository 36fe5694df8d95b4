"""What all checks share: the set-up that is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from proxy.clock import Clock
from proxy.config import Config
from proxy.doctor.cache import RunningCache
from proxy.doctor.image import Image
from proxy.oci.names import DOCKER_HUB


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One set-up. `canary` None: no canary pull; `root` None: the clients of this machine are left alone."""

    config: Config
    cache: RunningCache
    clock: Clock
    canary: Image | None
    root: Path | None
    home: Path | None = None
    """Of a user whose own client settings come before those in `root`."""

    @property
    def has_docker_hub(self) -> bool:
        """Whether Docker Hub is among the upstreams: that is what mirrors of clients are for."""
        return any(options.name == DOCKER_HUB for options in self.config.upstreams)
