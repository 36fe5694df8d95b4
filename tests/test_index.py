"""The index: what is written is read, at once and after a restart; losing it costs free HEADs and nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.clock import SystemClock
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
    index = Index(path, SystemClock())
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


def _before(path: Path) -> sqlite3.Connection:
    """A database of the version before."""
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE tags (
            repository TEXT, tag TEXT, accept TEXT, checked_at REAL, source TEXT,
            digest TEXT, media_type TEXT, size INTEGER,
            previous_digest TEXT, previous_media_type TEXT, previous_size INTEGER,
            PRIMARY KEY (repository, tag, accept)) WITHOUT ROWID;
        CREATE TABLE links (
            repository TEXT, digest TEXT, media_type TEXT, size INTEGER, held INTEGER,
            PRIMARY KEY (repository, digest)) WITHOUT ROWID;
        CREATE TABLE visibility (repository TEXT PRIMARY KEY, public INTEGER, checked_at REAL) WITHOUT ROWID;
        CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID;
        """
    )
    return connection


def _spoil_rows(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)  # The schema is whole, the rows are not.
    path.write_bytes(content)


def _malformed(path: Path) -> None:
    connection = _before(path)
    connection.executemany("INSERT INTO blobs VALUES (?, ?)", [(f"sha256:{n:064}", n) for n in range(1000)])
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()
    _spoil_rows(path)


def _truncated(path: Path) -> None:
    _before(path).close()
    path.write_bytes(path.read_bytes()[:5000])


def _foreign(path: Path) -> None:
    connection = _before(path)
    connection.execute("DROP TABLE links")
    connection.execute("PRAGMA user_version = 2")
    connection.close()


def _found_malformed_in_use(path: Path) -> None:
    path.write_bytes(b"")
    path.with_name(f"{path.name}.spoiled").touch()


@pytest.mark.parametrize("spoil", [_garbage, _newer, _malformed, _truncated, _foreign, _found_malformed_in_use])
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


async def test_a_file_of_the_version_before_is_taken_over(path: Path) -> None:
    connection = _before(path)
    connection.executemany("INSERT INTO blobs VALUES (?, ?)", [(str(DIGEST), 3), (str(OTHER), 4)])
    links = [("docker.io/library/app", str(DIGEST), "a/b", 3, 1)]
    connection.executemany("INSERT INTO links VALUES (?, ?, ?, ?, ?)", links)
    tag = ("docker.io/library/app", "latest", "", 12.5, None, str(DIGEST), "a/b", 3, None, None, None)
    connection.execute(f"INSERT INTO tags VALUES ({', '.join('?' * len(tag))})", tag)
    connection.execute("INSERT INTO visibility VALUES ('docker.io/library/app', 1, 99.5)")
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()

    async with opened(path) as index:
        link = index.link(APP, DIGEST)
        assert link is not None
        assert (link.descriptor, link.held) == (Descriptor(DIGEST, "a/b", 3), True)
        assert index.tag(APP, LATEST, "") == StoredTag(Descriptor(DIGEST, "a/b", 3), None, 12.5)
        assert index.visibility(APP) == Visibility(True, 99.5)
        assert (index.blob_size(DIGEST), index.blob_count, index.blob_bytes) == (3, 2, 7)
        manifests = await index.query(lambda reader: reader.execute("SELECT digest, manifest FROM blobs").fetchall())
        assert dict(manifests) == {str(DIGEST): 1, str(OTHER): 0}

    assert set_aside(path) == []


async def test_a_file_that_is_found_malformed_in_use_is_set_aside_at_the_next_start(path: Path) -> None:
    async with opened(path) as index:
        for number in range(2000):
            index.put_blob(Digest.of(str(number).encode()), number)
    _spoil_rows(path)

    async with opened(path) as index:
        assert index.blob_size(DIGEST) is None
    async with opened(path) as index:
        index.put_blob(DIGEST, 3)
        assert (index.blob_size(DIGEST), index.blob_count) == (3, 1)

    assert len(set_aside(path)) == 1


async def test_what_is_written_while_another_has_the_database_locked_is_written_when_it_has_not(path: Path) -> None:
    async with opened(path) as index:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        index.put_blob(DIGEST, 3)
        assert index.blob_size(DIGEST) == 3
        other.execute("COMMIT")
        other.close()
        assert await index.write(lambda writer: writer.execute("SELECT size FROM blobs").fetchall()) == [(3,)]


async def test_a_value_that_no_column_can_hold_takes_nothing_else_with_it(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as index:
        index.put_link(APP, Descriptor(DIGEST, "a/b", 2**70), held=True)
        index.put_link(APP, Descriptor(OTHER, "\ud800", 1), held=True)
        index.put_blob(DIGEST, 3)
        assert await index.write(lambda writer: writer.execute("SELECT size FROM blobs").fetchall()) == [(3,)]
    async with opened(path) as index:
        assert (index.blob_size(DIGEST), index.link(APP, OTHER)) == (3, None)

    assert caplog.text.count("a change could not be written to the index") == 2


async def test_a_job_comes_after_what_was_put_before_and_nothing_old_is_remembered_after_it(path: Path) -> None:
    async with opened(path) as index:
        index.put_blob(DIGEST, 3)
        index.put_blob(OTHER, 4)
        assert (index.blob_count, index.blob_bytes) == (2, 7)

        await index.forget_blobs([DIGEST])

        assert (index.blob_size(DIGEST), index.blob_size(OTHER)) == (None, 4)
        assert (index.blob_count, index.blob_bytes) == (1, 4)
    async with opened(path) as index:
        assert (index.blob_size(DIGEST), index.blob_count, index.blob_bytes) == (None, 1, 4)


async def test_a_job_that_fails_changes_nothing_and_tells_why(path: Path) -> None:
    def work(writer: sqlite3.Connection) -> None:
        writer.execute("DELETE FROM blobs")
        raise LookupError("no")

    async with opened(path) as index:
        index.put_blob(DIGEST, 3)
        with pytest.raises(LookupError, match="no"):
            await index.write(work)
        assert (index.blob_size(DIGEST), index.blob_count) == (3, 1)


async def test_a_query_whose_caller_leaves_ends(path: Path) -> None:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    started = asyncio.Event()
    async with opened(path) as index:
        loop = asyncio.get_running_loop()

        def ask(reader: sqlite3.Connection) -> None:
            loop.call_soon_threadsafe(started.set)
            reader.execute(endless).fetchall()

        asking = asyncio.create_task(index.query(ask))
        await started.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_a_query_cannot_change_anything(path: Path) -> None:
    async with opened(path) as index:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await index.query(lambda reader: reader.execute("DELETE FROM blobs"))


async def test_what_a_tag_was_is_kept_with_its_times(path: Path) -> None:
    first, second = Descriptor(DIGEST, "a/b", 3), Descriptor(OTHER, "a/b", 4)
    async with opened(path) as index:
        for target, at in ((first, 10.0), (first, 20.0), (second, 30.0), (first, 40.0)):
            index.put_tag(APP, LATEST, "", StoredTag(target, None, at))
            index.put_tag(APP, LATEST, "narrow", StoredTag(second, None, at))
        rows = await index.write(lambda writer: writer.execute("SELECT * FROM history ORDER BY first_seen").fetchall())

    assert rows == [
        ("docker.io/library/app", "latest", str(DIGEST), 10.0, 40.0),
        ("docker.io/library/app", "latest", str(OTHER), 30.0, 30.0),
    ]


async def test_what_vanished_is_news_once_and_until_it_is_back(path: Path) -> None:
    async with opened(path) as index:
        assert index.put_vanished(APP, LATEST, "MANIFEST_UNKNOWN")
        assert not index.put_vanished(APP, LATEST, "DENIED")
        index.put_vanished(APP, None, "DENIED")
        index.drop_vanished(APP, None)
        assert index.vanished(APP, None) is None
    async with opened(path) as index:
        found = index.vanished(APP, LATEST)
        assert found is not None
        assert found.reason == "MANIFEST_UNKNOWN"
        assert index.vanished(APP, None) is None
        index.drop_vanished(APP, LATEST)
        assert index.put_vanished(APP, LATEST, "MANIFEST_UNKNOWN")


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
    assert (await cache.status())["cache"].items() >= {"blobs": 1, "bytes": size}.items()
