"""What is on disk and what the index says are brought to agree, and no verified blob is lost on the way."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.oci.manifests import is_manifest
from proxy.oci.names import Digest
from proxy.store.scrub.inventory import Folder
from tests.blob_rig import KIB, MIB, REPOSITORY, add_layer, stored
from tests.cache_rig import CacheRig, Clock
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.scrub_rig import Stand, stand
from tests.test_integrity import blob_path, counted, failures
from tests.test_scrub import scrubbed


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path, Clock()) as made:
        yield made


Row = tuple[int, int, float, float]


async def rows(store: Stand) -> dict[str, Row]:
    """Size, whether a manifest, when stored, when used; by digest."""
    question = "SELECT digest, size, manifest, stored_at, used_at FROM blobs"
    found = await store.index.write(lambda connection: connection.execute(question).fetchall())
    return {digest: tuple(values) for digest, *values in found}


def put_file(store: Stand, content: bytes, written_at: float = 1000.0) -> Digest:
    """A blob without a row."""
    digest = Digest.of(content)
    path = store.blobs.path(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (written_at, written_at))
    return digest


def lose_index(cache: CacheRig) -> None:
    for file in cache.directory.glob("index.sqlite*"):
        file.unlink()


# By the door


async def test_a_lost_index_knows_again_what_is_stored_before_anybody_asks(hub: FakeHub, cache: CacheRig) -> None:
    layers = [add_layer(hub, size, seed=size) for size in (10 * KIB, MIB)]
    image = hub.add_image(REPOSITORY, "latest", [layer.digest for layer in layers])
    for layer in layers:
        await cache.get_blob(REPOSITORY, layer.digest)
        await stored(cache, layer.digest)
    await cache.get_manifest(REPOSITORY, "latest")
    await cache.stop()
    lose_index(cache)
    os.utime(blob_path(cache, image.digest), (1234.5, 1234.5))
    hub.reset_counts()

    await cache.start()

    async def knows_all() -> bool:
        return await counted(cache) == (3, sum(layer.size for layer in layers) + len(image.body))

    await eventually(knows_all)
    kinds = await cache.app.store.index.query(
        lambda reader: reader.execute("SELECT digest, manifest, used_at FROM blobs").fetchall()
    )
    assert {digest for digest, manifest, _ in kinds if manifest} == {image.digest}
    assert {used_at for digest, _, used_at in kinds if digest == image.digest} == {1234.5}
    assert hub.requests == [], "nobody was asked for it"
    assert (await cache.get_manifest(REPOSITORY, "latest")).body == image.body
    for layer in layers:
        assert (await cache.get_blob(REPOSITORY, layer.digest)).body == layer.content
    assert (hub.count("GET", "manifest"), hub.blob_bytes_sent) == (0, 0), "proven by free HEADs"
    assert await failures(cache) == {}


async def test_a_blob_that_a_crash_left_without_its_row_gets_it_by_the_next_scrub(
    hub: FakeHub, cache: CacheRig
) -> None:
    layer = add_layer(hub)
    await cache.get_blob(REPOSITORY, layer.digest)
    await stored(cache, layer.digest)
    await cache.app.store.index.write(lambda connection: connection.execute("DELETE FROM blobs"))
    assert await counted(cache) == (0, 0)

    await scrubbed(cache)

    assert await counted(cache) == (1, layer.size)
    assert await failures(cache) == {}


async def test_what_is_not_ours_is_left_alone_and_said_once(
    hub: FakeHub, cache: CacheRig, caplog: pytest.LogCaptureFixture
) -> None:
    layer = add_layer(hub)
    await cache.get_blob(REPOSITORY, layer.digest)
    await stored(cache, layer.digest)
    folder = blob_path(cache, layer.digest).parent
    wrong = "0" * 64 if folder.name != "00" else "1" * 64
    blobs = cache.directory / "blobs"
    (blobs / "lost+found").mkdir()
    (blobs / "lost+found" / "#123").write_text("somebody's")
    (blobs / "sha256" / "notes").write_text("somebody's")
    (blobs / "md5" / "ab").mkdir(parents=True)
    (folder / "README").write_text("somebody's")
    (folder / wrong).write_text("a digest, but not of this folder")
    (folder / (folder.name + "0" * 62)).mkdir()
    (folder / (folder.name + "1" * 62)).symlink_to("/etc/passwd")
    before = sorted(blobs.rglob("*"))

    await scrubbed(cache)
    await scrubbed(cache)

    status = cache.app.store.scrub.status()
    assert (status.files, status.bad, status.missing) == (1, 0, 0)
    assert sorted(blobs.rglob("*")) == before
    assert caplog.text.count("is left alone") == 1
    digest = Digest.parse(layer.digest)
    assert await cache.app.store.scrub._inventory.take(Folder.of(digest)) == ([digest], 0)
    assert await counted(cache) == (1, layer.size)


# Folder by folder


async def test_a_row_is_as_it_would_have_been(store: Stand) -> None:
    manifest = json.dumps({"schemaVersion": 2, "layers": []}).encode()
    config = json.dumps({"architecture": "amd64"}).encode()
    found = [put_file(store, content, at) for content, at in ((manifest, 5.0), (config, 6.5), (b"\x1f\x8b", 7.0))]
    known = await store.put(b"known")
    before = (await rows(store))[str(known)]

    assert await store.inventory.take_all() == 4

    assert await rows(store) == {
        str(found[0]): (len(manifest), 1, 5.0, 5.0),
        str(found[1]): (len(config), 0, 6.5, 6.5),
        str(found[2]): (2, 0, 7.0, 7.0),
        str(known): before,
    }
    assert store.index.blob_count == 4


@pytest.mark.parametrize(
    ("body", "manifest"),
    [
        (b'{"schemaVersion": 2}', True),
        (b"\n" * 100 + b' {"schemaVersion": 1, "name": "x"}', True),
        (b'{"config": {"schemaVersion": 2}}', False),
        (b'["schemaVersion"]', False),
        (b'{"schemaVersion": 2', False),
        (b"{}", False),
        (b"", False),
        (b"\x1f\x8b\x08 schemaVersion", False),
        (b"[" * 100_000, False),
    ],
)
async def test_a_manifest_is_known_by_its_content(store: Stand, body: bytes, manifest: bool) -> None:
    digest = put_file(store, body)

    await store.inventory.take_all()

    assert (await rows(store))[str(digest)][1] == manifest
    assert is_manifest(body) == manifest


async def test_what_is_stored_while_it_looks_keeps_its_own_row(store: Stand) -> None:
    body = b'{"not": "a manifest by its looks"}'
    digest = Digest.of(body)
    await store.blobs.put(digest, body)
    other = sqlite3.connect(store.directory / "index.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.index.put_blob(digest, len(body), manifest=True)  # Not written yet, so no query sees it.
    other.execute("COMMIT")
    other.close()

    await store.inventory.take(Folder.of(digest))

    assert (await rows(store))[str(digest)][1] == 1


async def test_rows_without_files_go_and_are_counted_once(store: Stand) -> None:
    digests = [await store.put(str(number).encode()) for number in range(1000)]
    for digest in digests[:600]:
        store.blobs.path(digest).unlink()

    assert await store.inventory.take_all() == 400
    assert await store.inventory.take_all() == 400

    assert (await rows(store)).keys() == {str(digest) for digest in digests[600:]}
    assert (store.index.blob_count, store.index.blob_size(digests[0])) == (400, None)
    count = store.metrics.registry.get_sample_value("pullthrough_integrity_failures_total", {"found": "missing"})
    assert count == 600


async def test_what_is_being_evicted_is_not_missing(store: Stand) -> None:
    digest = await store.put(b"content")
    with store.blobs.leaving([digest]):
        await store.blobs.discard([digest])
        assert await store.inventory.take(Folder.of(digest)) == ([], 0)


async def test_a_row_whose_folder_is_gone_goes_too(store: Stand) -> None:
    digest = await store.put(b"content")
    path = store.blobs.path(digest)
    path.unlink()
    path.parent.rmdir()
    path.parent.parent.rmdir()

    assert await store.inventory.take_all() == 0
    assert await rows(store) == {}


async def test_sha512_is_looked_at_too(store: Stand) -> None:
    digest = Digest.of(b"content", "sha512")
    await store.blobs.put(digest, b"content")

    assert await store.inventory.folders() == [Folder.of(digest)]
    assert await store.inventory.take_all() == 1
    assert store.index.blob_size(digest) == 7


async def test_the_disk_is_not_looked_at_on_the_event_loop(store: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        put_file(store, str(number).encode())
    threads: set[threading.Thread] = set()

    def noting(real: Any) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            threads.add(threading.current_thread())
            return real(*arguments, **more)

        return call

    for owner, name in ((os, "scandir"), (os, "stat"), (Path, "exists"), (Path, "open")):
        monkeypatch.setattr(owner, name, noting(getattr(owner, name)))

    await store.inventory.take_all()

    assert threads
    assert threading.main_thread() not in threads


async def test_rows_are_written_in_parts(store: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.store.scrub.inventory._JOB_ROWS", 3)
    digests = [put_file(store, str(number).encode()) for number in range(2000)]
    folder = Folder.of(digests[0])
    sizes: list[int] = []
    real = store.inventory._add

    def noting(files: Any, connection: sqlite3.Connection) -> None:
        sizes.append(len(files))
        real(files, connection)

    monkeypatch.setattr(store.inventory, "_add", noting)
    await store.inventory.take(folder)

    of_folder = [digest for digest in digests if Folder.of(digest) == folder]
    assert sum(sizes) == len(of_folder) > 3
    assert max(sizes) <= 3
