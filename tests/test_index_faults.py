"""The index is lost, spoilt, too new or locked: pulls go on, and no verified blob is lost or paid for again."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.app import App, StartError
from proxy.store.index import database
from tests.blob_rig import KIB, MIB, REPOSITORY, Layer, add_layer, stored
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.fake_hub.answers import Answer
from tests.fake_hub.content import Bytes
from tests.fake_hub.faults import at
from tests.test_integrity import blob_path, counted, failures
from tests.test_inventory import lose_index
from tests.test_scrub import scrubbed


class Pulled:
    """An image that the cache holds, and what it comes to."""

    def __init__(self, hub: FakeHub, cache: CacheRig) -> None:
        self.hub, self.cache = hub, cache
        self.layers = [add_layer(hub, size, seed=size) for size in (10 * KIB, MIB)]
        self.image = hub.add_image(REPOSITORY, "latest", [layer.digest for layer in self.layers])

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers) + len(self.image.body)

    async def pull(self) -> None:
        """As a client does, and all of it right."""
        manifest = await self.cache.get_manifest(REPOSITORY, "latest")
        assert (manifest.status, manifest.body) == (200, self.image.body)
        for layer in self.layers:
            reply = await self.cache.get_blob(REPOSITORY, layer.digest)
            assert (reply.status, reply.body) == (200, layer.content)
            await stored(self.cache, layer.digest)

    async def knows_all(self) -> None:
        """Wait until the index has all of it."""

        async def known() -> bool:
            return await counted(self.cache) == (3, self.size)

        await eventually(known, label="the index has all that is stored")

    def paid(self) -> tuple[int, int]:
        """Counted pulls, and bytes of blobs."""
        return self.hub.count("GET", "manifest"), self.hub.blob_bytes_sent


@pytest.fixture
async def pulled(hub: FakeHub, cache: CacheRig) -> Pulled:
    made = Pulled(hub, cache)
    await made.pull()
    return made


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a moment only for whoever has the database locked."""
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.05)


def index_of(cache: CacheRig) -> Path:
    return cache.directory / "index.sqlite"


def lost(cache: CacheRig) -> None:
    lose_index(cache)


def garbage(cache: CacheRig) -> None:
    index_of(cache).write_bytes(b"this is no database" * 10_000)


def cut(cache: CacheRig) -> None:
    index_of(cache).write_bytes(index_of(cache).read_bytes()[:5000])


def emptied(cache: CacheRig) -> None:
    index_of(cache).write_bytes(b"")


def zeroed(cache: CacheRig) -> None:
    """As some file systems leave a file after a power failure."""
    index_of(cache).write_bytes(bytes(index_of(cache).stat().st_size))


def rows_gone_bad(cache: CacheRig) -> None:
    content = bytearray(index_of(cache).read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    index_of(cache).write_bytes(content)


def newer(cache: CacheRig) -> None:
    with sqlite3.connect(index_of(cache)) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()


def much_older(cache: CacheRig) -> None:
    with sqlite3.connect(index_of(cache)) as connection:
        connection.execute("PRAGMA user_version = 1")
    connection.close()


def found_malformed_in_use(cache: CacheRig) -> None:
    index_of(cache).with_name("index.sqlite.spoiled").touch()


def a_log_of_another(cache: CacheRig) -> None:
    """As when only one of two files was restored from a backup."""
    index_of(cache).with_name("index.sqlite-wal").write_bytes(b"\x37\x7f\x06\x82" + bytes(10_000))


SPOILT = (garbage, cut, zeroed, rows_gone_bad, newer, much_older, found_malformed_in_use)


@pytest.mark.parametrize("spoil", [*SPOILT, lost, emptied, a_log_of_another])
async def test_whatever_has_become_of_the_index_all_that_is_stored_is_served_after_free_heads(
    cache: CacheRig, pulled: Pulled, spoil: Callable[[CacheRig], None]
) -> None:
    await cache.stop()
    spoil(cache)
    before = cache.blobs_on_disk()
    pulled.hub.reset_counts()

    await cache.start()
    await pulled.knows_all()
    await pulled.pull()

    assert pulled.paid() == (0, 0)
    assert cache.blobs_on_disk() == before
    assert await failures(cache) == {}
    aside = sorted(path.name for path in cache.directory.glob("index.sqlite.unusable-*"))
    assert aside == (["index.sqlite.unusable-1"] if spoil in SPOILT else [])


@pytest.mark.parametrize("length", [100 * KIB, 2 * MIB], ids=["shorter", "longer"])
async def test_a_blob_that_was_cut_and_whose_size_nobody_knows_any_more_is_compared_with_what_upstream_tells(
    cache: CacheRig, pulled: Pulled, length: int
) -> None:
    layer = pulled.layers[1]
    await cache.stop()
    lost(cache)
    os.truncate(blob_path(cache, layer.digest), length)
    pulled.hub.reset_counts()
    await cache.start()

    await pulled.pull()

    assert await failures(cache) == {"opened": 1}
    assert (pulled.hub.cdn_count(layer.digest), pulled.hub.bytes_sent(layer.digest)) == (1, layer.size)


def of_another_size(answer: Answer) -> None:
    answer.content = Bytes(b"another blob")


async def test_an_upstream_that_lies_about_a_size_costs_a_stored_blob_nothing_but_a_look(
    cache: CacheRig, pulled: Pulled
) -> None:
    layer = pulled.layers[1]
    await cache.stop()
    lost(cache)
    await cache.start()
    lie = pulled.hub.change(at(method="HEAD", reference=layer.digest), of_another_size)
    pulled.hub.reset_counts()

    await pulled.pull()

    assert lie.used
    assert pulled.paid() == (0, 0)
    assert await failures(cache) == {}


def previous_version(cache: CacheRig) -> None:
    """What the release before would have written."""
    with sqlite3.connect(index_of(cache)) as connection:
        connection.executescript(
            """
            ALTER TABLE links RENAME TO links_now;
            ALTER TABLE blobs RENAME TO blobs_now;
            CREATE TABLE links (repository TEXT, digest TEXT, media_type TEXT, size INTEGER, held INTEGER,
                PRIMARY KEY (repository, digest)) WITHOUT ROWID;
            CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID;
            INSERT INTO links SELECT repository, digest, media_type, size, held FROM links_now;
            INSERT INTO blobs SELECT digest, size FROM blobs_now;
            DROP TABLE links_now; DROP TABLE blobs_now; DROP TABLE history; DROP TABLE vanished; DROP TABLE pins;
            DROP TABLE state; DROP TABLE totals;
            PRAGMA user_version = 2;
            """
        )
    connection.close()


async def test_an_index_of_the_version_before_is_taken_over_with_all_it_knows(cache: CacheRig, pulled: Pulled) -> None:
    await cache.stop()
    previous_version(cache)
    pulled.hub.reset_counts()

    await cache.start()
    await pulled.pull()

    assert pulled.hub.requests == [], "not even a HEAD"
    assert await counted(cache) == (3, pulled.size)
    assert not list(cache.directory.glob("*.unusable-*"))


async def test_an_index_that_goes_bad_in_use_costs_heads_and_is_begun_anew_at_the_next_start(
    cache: CacheRig, pulled: Pulled
) -> None:
    await cache.restart()
    rows_gone_bad(cache)
    pulled.hub.reset_counts()

    await pulled.pull()
    assert pulled.paid() == (0, 0)
    await cache.restart()
    await pulled.knows_all()
    await pulled.pull()

    assert pulled.paid() == (0, 0)


async def test_a_row_that_names_another_size_is_put_right_by_the_fetch_that_it_costs(
    cache: CacheRig, pulled: Pulled
) -> None:
    layer: Layer = pulled.layers[1]
    row = (layer.digest,)
    await cache.app.store.index.write(lambda writer: writer.execute("UPDATE blobs SET size = 5 WHERE digest = ?", row))

    await pulled.pull()
    await pulled.pull()

    assert await failures(cache) == {"opened": 1}
    assert pulled.hub.cdn_count(layer.digest) == 2
    assert await counted(cache) == (3, pulled.size)


# Locked by somebody else


@contextmanager
def locked(cache: CacheRig, *, entirely: bool = False) -> Iterator[None]:
    """Another program writes to the database, or has it for itself, for as long as this lasts."""
    other = sqlite3.connect(index_of(cache), isolation_level=None)
    if entirely:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


async def test_while_the_index_is_locked_all_is_served_and_written_down_afterwards(
    cache: CacheRig, pulled: Pulled
) -> None:
    other = add_layer(pulled.hub, MIB, seed=9)
    with locked(cache):
        await pulled.pull()
        reply = await cache.get_blob(REPOSITORY, other.digest)
        again = await cache.get_blob(REPOSITORY, other.digest)
        during = await counted(cache)

    assert reply.body == again.body == other.content
    assert pulled.hub.cdn_count(other.digest) == 1
    assert during == (4, pulled.size + other.size)
    await cache.app.store.index.write(lambda writer: None)
    with sqlite3.connect(index_of(cache)) as reader:
        assert reader.execute("SELECT COUNT(*) FROM blobs").fetchone() == (4,)
    reader.close()


async def test_a_start_while_the_index_is_locked_serves(cache: CacheRig, pulled: Pulled) -> None:
    await cache.stop()
    blob_path(cache, pulled.layers[0].digest).unlink()
    with locked(cache):
        await cache.start()
        await pulled.pull()
    await cache.restart()
    await pulled.pull()

    assert await counted(cache) == (3, pulled.size)


async def test_a_stop_while_the_index_is_locked_ends_and_costs_no_blob(
    cache: CacheRig, pulled: Pulled, caplog: pytest.LogCaptureFixture
) -> None:
    other = add_layer(pulled.hub, MIB, seed=9)
    with locked(cache):
        await cache.get_blob(REPOSITORY, other.digest)
        await stored(cache, other.digest)
        await cache.stop()
    assert "could not be written to the index" in caplog.text
    pulled.hub.reset_counts()
    await cache.start()

    reply = await cache.get_blob(REPOSITORY, other.digest)

    assert reply.body == other.content
    assert pulled.paid() == (0, 0)


async def test_a_scrub_waits_for_an_index_that_is_locked_and_holds_up_no_stop(cache: CacheRig, pulled: Pulled) -> None:
    blob_path(cache, pulled.layers[1].digest).unlink()
    with locked(cache):
        cache.app.store.scrub.begin(None)
        await eventually(lambda: cache.app.store.scrub._walking is not None)
        await cache.stop()
    await cache.start()
    await scrubbed(cache)

    assert cache.app.store.scrub.status().missing == 1


async def test_an_index_that_another_has_for_itself_is_a_clear_refusal_to_start(
    cache: CacheRig, pulled: Pulled
) -> None:
    await cache.stop()
    with locked(cache, entirely=True), pytest.raises(StartError, match=r"cannot use the cache folder .*locked"):
        await App(cache.config()).start()
    assert not list(cache.directory.glob("*.unusable-*"))

    await cache.start()
    await pulled.pull()
