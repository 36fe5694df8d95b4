"""The index: what is written is read, at once and after a restart; losing it costs free HEADs and nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.oci.manifests import Descriptor
from proxy.oci.names import Digest, Repository, Tag
from proxy.policy.access import Visibility
from proxy.policy.freshness import StoredTag
from proxy.store.index import Index
from tests.blob_rig import KIB, MIB, REPOSITORY, add_layer, no_fills
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub

APP = Repository.parse("library/app")
LATEST = Tag.parse("latest")
DIGEST, OTHER = Digest.of(b"one"), Digest.of(b"other")


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Index]:
    index = Index(path)
    try:
        index.open(asyncio.get_running_loop())
        yield index
    finally:
        index.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


async def test_what_was_written_is_read_at_once_and_after_a_restart(path: Path) -> None:
    target, previous = Descriptor(DIGEST, "a/b", 3), Descriptor(OTHER, "c/d", None)
    tag, visibility = StoredTag(target, previous, 12.5, "mirror.gcr.io"), Visibility(True, 99.5)

    async with opened(path) as index:
        index.put_tag(APP, LATEST, "", tag)
        index.put_link(APP, target, held=True)
        index.put_visibility(APP, visibility)
        index.put_blob(DIGEST, 3)
        for _ in range(2):
            link = index.link(APP, DIGEST)
            assert (index.tag(APP, LATEST, ""), index.visibility(APP)) == (tag, visibility)
            assert link is not None
            assert (link.descriptor, link.held) == (target, True)
            assert (index.blob_size(DIGEST), index.blob_count, index.blob_bytes) == (3, 1, 3)

    async with opened(path) as index:
        link = index.link(APP, DIGEST)
        assert (index.tag(APP, LATEST, ""), index.visibility(APP)) == (tag, visibility)
        assert link is not None
        assert (link.descriptor, link.held) == (target, True)
        assert (index.blob_size(DIGEST), index.blob_count, index.blob_bytes) == (3, 1, 3)


async def test_what_was_never_written_is_not_known(path: Path) -> None:
    async with opened(path) as index:
        assert index.tag(APP, LATEST, "") is None
        assert index.link(APP, DIGEST) is None
        assert index.visibility(APP) is None
        assert index.blob_size(DIGEST) is None


async def test_what_is_not_committed_yet_is_read_though_memory_forgot_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.store.index._REMEMBERED_ROWS", 1)

    async with opened(path) as index:
        for size in range(100):  # No `await` in here: the loop learns of no commit meanwhile.
            index.put_blob(Digest.of(str(size).encode()), size)
        sizes = [index.blob_size(Digest.of(str(size).encode())) for size in range(100)]

    assert sizes == list(range(100))


async def test_proof_is_never_unlearned(path: Path) -> None:
    async with opened(path) as index:
        index.put_link(APP, Descriptor(DIGEST, "a/b", 3), held=True)
        index.put_link(APP, Descriptor(DIGEST, "c/d", 4), held=False)

        link = index.link(APP, DIGEST)

    assert link is not None
    assert (link.descriptor, link.held) == (Descriptor(DIGEST, "a/b", 3), True)


async def test_a_claim_becomes_proof(path: Path) -> None:
    async with opened(path) as index:
        index.put_link(APP, Descriptor(DIGEST, "a/b", None), held=False)
        claimed = index.link(APP, DIGEST)
        index.put_link(APP, Descriptor(DIGEST, "a/b", 3), held=True)
        proven = index.link(APP, DIGEST)

    assert claimed is not None
    assert proven is not None
    assert (claimed.held, proven.held) == (False, True)


async def test_a_blob_is_counted_once_with_its_last_size(path: Path) -> None:
    async with opened(path) as index:
        for size in (5, 5, 7):
            index.put_blob(DIGEST, size)

        assert (index.blob_count, index.blob_bytes, index.blob_size(DIGEST)) == (1, 7, 7)


def set_aside(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.glob("*.unusable-*"))


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()


def _malformed(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID")
    connection.executemany("INSERT INTO blobs VALUES (?, ?)", [(f"sha256:{n:064}", n) for n in range(1000)])
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)  # The schema is whole, the rows are not.
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [_garbage, _newer, _malformed])
async def test_a_file_that_cannot_be_used_is_set_aside_and_a_new_one_begun(
    path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        spoil(path)

        async with opened(path) as index:
            index.put_blob(DIGEST, 3)
        async with opened(path) as index:
            assert (index.blob_size(DIGEST), index.blob_count) == (3, 1)

        assert len(set_aside(path)) == number
        for suffix in ("", "-wal", "-shm"):
            path.with_name(f"index.sqlite{suffix}").unlink(missing_ok=True)
    assert set_aside(path) == ["index.sqlite.unusable-1", "index.sqlite.unusable-2"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


async def test_a_file_that_cannot_be_reached_is_not_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    path.mkdir()

    with pytest.raises(sqlite3.OperationalError):
        async with opened(path):
            pass

    assert set_aside(path) == []


async def test_writes_that_fail_are_said_and_lose_nothing_else(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(path) as index:
        with sqlite3.connect(path) as other:
            other.execute("DROP TABLE visibility")
        other.close()
        index.put_visibility(APP, Visibility(True, 1.0))
        assert index.visibility(APP) == Visibility(True, 1.0)
    async with opened(path) as index:
        index.put_blob(DIGEST, 3)
        assert index.blob_size(DIGEST) == 3

    assert "could not be written to the index" in caplog.text


@pytest.mark.parametrize("size", [10 * KIB, MIB], ids=["small", "large"])
async def test_without_its_index_the_cache_serves_its_blobs_after_free_heads(
    hub: FakeHub, cache: CacheRig, size: int
) -> None:
    layer = add_layer(hub, size)
    await cache.get_blob(REPOSITORY, layer.digest)
    await no_fills(cache)
    await cache.stop()
    for file in cache.directory.glob("index.sqlite*"):
        file.unlink()
    await cache.start()
    hub.reset_counts()

    replies = [await cache.get_blob(REPOSITORY, layer.digest) for _ in range(3)]

    assert {(reply.status, reply.body) for reply in replies} == {(200, layer.content)}
    assert (hub.count("HEAD", "blob"), hub.count("GET", "blob"), hub.blob_bytes_sent) == (1, 0, 0)
    assert (await cache.status())["cache"] | {"directory": "", "memory_bytes": 0} == {
        "directory": "",
        "blobs": 1,
        "bytes": size,
        "memory_bytes": 0,
    }
