"""A disk that fails: at the start that is said, later on what is stored is served; what was verified outlives it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.app import App, StartError
from tests.blob_rig import KIB, MIB, REPOSITORY, Layer, add_layer, stored
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub
from tests.programs import skip_or_fail
from tests.test_integrity import blob_path, failures
from tests.test_scrub import flip, scrubbed


class Disk:
    """An ext4 file system of its own, that can have the trouble a real one has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._image = folder.with_suffix(".ext4")

    def make(self) -> None:
        with self._image.open("wb") as file:
            file.truncate(64 * MIB)
        subprocess.run(["mkfs.ext4", "-q", self._image], check=True)
        self.folder.mkdir()
        self.mount()

    def mount(self, options: str = "errors=remount-ro") -> None:
        command = ["mount", "-o", f"loop,{options}", str(self._image), str(self.folder)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            skip_or_fail(f"a disk cannot be mounted here: {done.stderr.decode(errors='replace').strip()}")

    def fail(self) -> None:
        """What the kernel does when it meets an error: from now on nothing can be written, whoever has a file open."""
        subprocess.run(["mount", "-o", "remount,abort", self.folder], check=True)

    def settle(self) -> None:
        """Bring all that was written onto the disk."""
        subprocess.run(["sync", "-f", self.folder], check=True)

    def write_journal(self, folder: Path) -> None:
        """Make names durable that were given until now, as happens every few seconds; content is another matter."""
        fd = os.open(folder, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def unmount(self) -> None:
        subprocess.run(["umount", self.folder], check=True)


@contextmanager
def made(folder: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        skip_or_fail("needs root, to mount a disk")
    if shutil.which("mkfs.ext4") is None:
        skip_or_fail("needs mkfs.ext4")
    disk = Disk(folder)
    disk.make()
    try:
        yield disk
    finally:
        disk.unmount()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with made(tmp_path / "disk") as running:
        yield running


@pytest.fixture
async def cache(hub: FakeHub, disk: Disk) -> AsyncIterator[CacheRig]:
    async with CacheRig(hub.url, disk.folder / "cache") as running:
        yield running


async def pull(cache: CacheRig, layer: Layer) -> None:
    """All of it, and right."""
    reply = await cache.get_blob(REPOSITORY, layer.digest)
    assert (reply.status, reply.body) == (200, layer.content)


async def test_a_folder_that_becomes_read_only_goes_on_serving_and_passes_the_rest_through(
    hub: FakeHub, cache: CacheRig, disk: Disk
) -> None:
    layers = [add_layer(hub, size, seed=size) for size in (10 * KIB, MIB)]
    fresh = [add_layer(hub, size, seed=size) for size in (20 * KIB, 3 * MIB)]
    image = hub.add_image(REPOSITORY, "latest", [layer.digest for layer in layers])
    other = hub.add_image(REPOSITORY, "other", [layer.digest for layer in fresh])
    assert (await cache.get_manifest(REPOSITORY, "latest")).status == 200
    for layer in layers:
        await pull(cache, layer)
        await stored(cache, layer.digest)

    disk.settle()
    disk.fail()
    hub.reset_counts()

    for _ in range(2):
        cache.clock.advance(1000)  # Tags are asked for anew, and what is said of them cannot be written down.
        for tag, pulled in (("latest", image), ("other", other)):
            manifest = await cache.get_manifest(REPOSITORY, tag)
            assert (manifest.status, manifest.body) == (200, pulled.body)
        for layer in [*layers, *fresh]:
            head = await cache.head_blob(REPOSITORY, layer.digest)
            assert (head.status, head.headers["Content-Length"]) == (200, str(layer.size))
            await pull(cache, layer)
    assert hub.cdn_count(layers[0].digest) == hub.cdn_count(layers[1].digest) == 0, "these are on disk"
    assert hub.count("GET", "manifest") == 1, "the other one is in memory now"
    assert hub.violations == []

    await cache.stop()
    disk.unmount()
    disk.mount()
    await cache.start()
    hub.reset_counts()
    assert (await cache.get_manifest(REPOSITORY, image.digest)).body == image.body
    for layer in [*layers, *fresh]:
        await pull(cache, layer)
    assert [hub.cdn_count(layer.digest) for layer in [*layers, *fresh]] == [0, 0, 1, 1]


async def test_what_is_bad_on_a_read_only_disk_is_not_used_and_passed_through(
    hub: FakeHub, cache: CacheRig, disk: Disk
) -> None:
    cut, flipped, good = (add_layer(hub, size, seed=size) for size in (MIB, 2 * MIB, 3 * MIB))
    for layer in (cut, flipped, good):
        await pull(cache, layer)
        await stored(cache, layer.digest)
    os.truncate(blob_path(cache, cut.digest), 1000)
    flip(blob_path(cache, flipped.digest))
    disk.settle()
    disk.fail()
    hub.reset_counts()

    await scrubbed(cache)
    for layer in (cut, flipped, good) * 2:
        await pull(cache, layer)

    assert [hub.cdn_count(layer.digest) > 0 for layer in (cut, flipped, good)] == [True, True, False]
    assert await failures(cache) == {"scrub": 2}


async def test_a_folder_that_is_read_only_at_the_start_is_said_by_name(
    hub: FakeHub, cache: CacheRig, disk: Disk
) -> None:
    layer = add_layer(hub)
    await pull(cache, layer)
    await stored(cache, layer.digest)
    await cache.stop()
    disk.unmount()
    disk.mount("ro")

    with pytest.raises(StartError, match=r"cannot use the cache folder .*Read-only file system.*writable") as refusal:
        await App(cache.config()).start()
    assert "\n" not in str(refusal.value)

    disk.unmount()
    disk.mount()
    await cache.start()
    await pull(cache, layer)
    assert hub.cdn_count(layer.digest) == 1


@pytest.mark.parametrize("named", [True, False], ids=["names are durable", "names are not"])
async def test_after_a_power_failure_what_has_a_name_is_whole_and_what_has_none_is_fetched_again(
    hub: FakeHub, cache: CacheRig, disk: Disk, named: bool
) -> None:
    layers = [add_layer(hub, size, seed=size) for size in (10 * KIB, MIB, 5 * MIB)]
    image = hub.add_image(REPOSITORY, "latest", [layer.digest for layer in layers])
    await cache.get_manifest(REPOSITORY, "latest")
    for layer in layers:
        await pull(cache, layer)
        await stored(cache, layer.digest)
    if named:
        for digest in (image.digest, *(layer.digest for layer in layers)):
            disk.write_journal(blob_path(cache, digest).parent)

    disk.fail()
    await cache.stop()
    disk.unmount()
    disk.mount()
    (cache.directory / "partial" / "boot_id").write_text("the boot before")
    left = cache.blobs_on_disk()
    await cache.start()
    hub.reset_counts()

    for digest in left:
        assert f"sha256:{hashlib.sha256(blob_path(cache, digest).read_bytes()).hexdigest()}" == digest
    assert (await cache.get_manifest(REPOSITORY, "latest")).body == image.body
    for layer in layers:
        await pull(cache, layer)
    assert len(left) == 4 or not named
    assert sum(hub.cdn_count(layer.digest) for layer in layers) == len({layer.digest for layer in layers} - left)


async def test_after_a_power_failure_a_bad_blob_is_not_back_in_its_place(
    hub: FakeHub, cache: CacheRig, disk: Disk
) -> None:
    layer = add_layer(hub)
    await pull(cache, layer)
    await stored(cache, layer.digest)
    path = blob_path(cache, layer.digest)
    flip(path)
    disk.settle()

    await scrubbed(cache)
    disk.fail()
    await cache.stop()
    disk.unmount()
    disk.mount()

    assert not path.exists()
    await cache.start()
    await pull(cache, layer)
    assert path.read_bytes() == layer.content
