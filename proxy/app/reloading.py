"""What a reload of the configuration can change, and what waits for a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from proxy.config import Config

FIXED: Final[Mapping[str, tuple[str, ...]]] = {
    "server": ("listen", "workers", "reuse_port"),
    "admin": ("listen",),
    "cache": ("directory", "memory", "max_fills"),
    "metrics": ("aliases",),
}
"""What is built once, by section. All else is taken."""


def carried_over(running: Config, wanted: Config) -> tuple[Config, list[str]]:
    """What can be had of the wanted configuration now, and the settings that it changes in vain until a restart."""
    waiting: list[str] = []
    for section, keys in FIXED.items():
        old, new = getattr(running, section), getattr(wanted, section)
        changed = [key for key in keys if getattr(old, key) != getattr(new, key)]
        if changed:
            kept = replace(new, **{key: getattr(old, key) for key in changed})
            wanted = replace(wanted, **{section: kept})
        waiting += [f"{section}.{key}" for key in changed]
    return wanted, waiting
