"""What the tests of room on disk share: a cache with limits, and a look at what is on disk."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxy.config import CacheOptions, Share
from proxy.oci.names import Digest
from proxy.store.room.eviction import Plan
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.programs import skip_or_fail

GRACE = 600.0


async def limit(cache: CacheRig, **settings: Any) -> None:
    """Restart with these limits. Without others: no grace, and no minimum of free space on this machine's disk."""
    given = {"grace": 0.0, "min_free": Share(0), **settings}
    cache.options = {**cache.options, "cache": CacheOptions(directory=cache.directory, **given)}
    await cache.restart()


async def collect(cache: CacheRig) -> int:
    """Evict now what would be evicted within half a minute; returns the bytes that were freed."""
    return await cache.app.store.evictor.collect()


async def plan(cache: CacheRig) -> Plan:
    """What would be evicted."""
    return await cache.app.store.evictor.plan(100)


async def unused(cache: CacheRig) -> None:
    """Wait until no response reads from a blob any more: the server ends a little later than its client."""
    await eventually(lambda: not cache.app.store.leases, label="no blob is being read")


async def pin(cache: CacheRig, repository: str) -> None:
    """Never evict what this repository names."""
    row = (f"docker.io/{repository}",)
    await cache.app.store.index.write(lambda connection: connection.execute("INSERT INTO pins VALUES (?, 0)", row))


async def rows(cache: CacheRig) -> dict[str, int]:
    """The sizes of the blobs that the index knows."""
    query = "SELECT digest, size FROM blobs"
    await cache.app.store.index.write(lambda connection: None)  # So that all is committed.
    return dict(await cache.app.store.index.query(lambda connection: connection.execute(query).fetchall()))


def bytes_on_disk(directory: Path) -> int:
    """Of blobs and partial files."""
    total = 0
    for folder in ("blobs", "partial"):
        for parent, _, names in os.walk(directory / folder):
            for name in names:
                if name != "boot_id":
                    try:
                        total += os.stat(os.path.join(parent, name)).st_size
                    except FileNotFoundError:
                        continue  # It was renamed or removed at that moment.
    return total


class Watch:
    """The most that was on disk at any moment, and the least that was free but for the index."""

    def __init__(self, directory: Path) -> None:
        self.most = 0
        self.least_free = 1 << 62
        self.looks = 0
        self._directory = directory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.most = max(self.most, bytes_on_disk(self._directory))
            self.least_free = min(self.least_free, self._free())
            self.looks += 1

    def _free(self) -> int:
        index = sum(path.stat().st_blocks * 512 for path in self._directory.glob("index.sqlite*"))
        found = os.statvfs(self._directory)
        return found.f_bavail * found.f_frsize + index

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def mounted(directory: Path, size: int) -> Iterator[Path]:
    """A file system of its own, of so many bytes, in memory."""
    if os.geteuid() != 0:
        skip_or_fail("mounting a small file system needs root")
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def digests(*layers: Any) -> set[str]:
    """Theirs."""
    return {layer.digest for layer in layers}


def parsed(*layers: Any) -> list[Digest]:
    """Their digests as values."""
    return [Digest.parse(layer.digest) for layer in layers]
