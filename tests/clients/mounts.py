"""Mounts that a container engine left behind."""

import subprocess
from pathlib import Path


def unmount_below(directory: Path) -> None:
    """Unmount everything below a directory, the deepest first."""
    targets = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for target in sorted((each for each in targets if each.startswith(f"{directory}/")), reverse=True):
        subprocess.run(["umount", "--lazy", target], check=False)
