"""The cache's own disk: full, read-only, ill, and with files in it that are not what they were."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.blob_rig import KIB, REPOSITORY, partial_has
from tests.eventually import eventually
from tests.faults.client import assert_harmless, bounded
from tests.faults.fault import Fault, Seen
from tests.faults.pulling import Act, aftermath, fault
from tests.faults.stand import Asked, Stand
from tests.programs import skip_or_fail

HALF = 512 * KIB

_Damage = Callable[[Path], object]


def _damaged(asked: Asked, damage: _Damage, *, restart: bool = False) -> Act:
    """Do something to the file of what is asked for; with `restart` it is no longer in memory then."""

    async def act(stand: Stand) -> None:
        damage(stand.blob_path(stand.digest_of(asked)))
        if restart:
            await stand.cache.restart()

    return act


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        byte = file.read(1)[0]
        file.seek(100)
        file.write(bytes([byte ^ 0xFF]))


def _make_unreadable(path: Path) -> None:
    path.rename(path.with_suffix(".aside"))
    path.symlink_to(path.name)  # Opening it fails with ELOOP, for root too.


def _make_readable(stand: Stand) -> None:
    path = stand.blob_path(stand.layer.digest)
    path.with_suffix(".aside").replace(path)


def _index(damage: _Damage) -> Act:
    """Do something to the index while the cache is down."""

    async def act(stand: Stand) -> None:
        await stand.cache.stop()
        damage(stand.cache.directory / "index.sqlite")
        await stand.cache.start()

    return act


async def _flip_and_scrub(stand: Stand) -> None:
    """The bytes of a large blob are not read again at every pull; the scrub finds what has gone bad."""
    _flip(stand.blob_path(stand.layer.digest))
    scrub = stand.cache.app.store.scrub
    scrub.begin(None)
    await eventually(lambda: not scrub.status().running, label="the scrub has ended")
    assert not stand.blob_path(stand.layer.digest).exists()


def _lose(path: Path) -> None:
    for each in path.parent.glob("index.sqlite*"):
        each.unlink()


def _overwrite(path: Path) -> None:
    path.write_bytes(b"not a database " * 1000)


def _make_newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def _left(content: Callable[[Stand], bytes], *, boot_id: str | None = None) -> Act:
    """Let an earlier run have left a partial, perhaps of another boot of the machine."""

    async def act(stand: Stand) -> None:
        await stand.cache.stop()
        folder = stand.cache.directory / "partial"
        (folder / stand.layer.digest.replace(":", "-")).write_bytes(content(stand))
        if boot_id is not None:
            (folder / "boot_id").write_text(boot_id)
        await stand.cache.start()

    return act


def _mount(stand: Stand, folder: Path, *options: str) -> None:
    """Mount a tmpfs there until the stand is taken down."""
    if os.getuid() != 0:
        skip_or_fail("mounting a file system needs root")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder], check=True)
    stand.after.callback(_unmount, folder)


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", folder], check=False, stderr=subprocess.DEVNULL)


async def _onto_a_small_disk(stand: Stand, size: str) -> None:
    """Let the cache begin anew on a file system of this size."""
    await stand.cache.stop()
    stand.cache.directory = stand.folder / "small"
    _mount(stand, stand.cache.directory, f"size={size}")
    await stand.cache.start()
    await stand.cache.get_blob(REPOSITORY, stand.small.digest)


async def _full_before(stand: Stand) -> None:
    await _onto_a_small_disk(stand, "2m")
    _fill_up(stand)


def _fill_up(stand: Stand) -> None:
    """Take what is free, as somebody else's log might."""
    with (stand.cache.directory / "somebody-else's").open("ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def _make_room(stand: Stand) -> None:
    (stand.cache.directory / "somebody-else's").unlink()


def _read_only_partials(stand: Stand) -> None:
    _mount(stand, stand.cache.directory / "partial", "ro")


def _writable_partials(stand: Stand) -> None:
    _unmount(stand.cache.directory / "partial")


async def _full_in_mid_fill(stand: Stand) -> Seen:
    await stand.prepare(Asked.COLD_BLOB)
    await _onto_a_small_disk(stand, "2m")
    gate = stand.hub.hold("cdn", HALF, times=1)
    before = await stand.cache.metrics()
    pulling = asyncio.ensure_future(stand.pull(Asked.COLD_BLOB))
    await partial_has(stand.cache, stand.layer.digest, HALF)
    _fill_up(stand)
    gate.release()
    got = await bounded(pulling, 10.0)
    assert_harmless(got, stand.layer.content)
    return await aftermath(stand, Asked.COLD_BLOB, str(got), before, _make_room)


def _lock_the_index(stand: Stand) -> None:
    holder = sqlite3.connect(stand.cache.directory / "index.sqlite", isolation_level=None)
    stand.after.callback(holder.close)
    holder.execute("BEGIN IMMEDIATE")


async def _let_go(stand: Stand) -> None:
    await stand.after.aclose()


async def _index_locked(stand: Stand) -> Seen:
    """Another program holds the database when the cache starts, and lets go a moment later."""
    await stand.prepare(Asked.WARM_BLOB)
    await stand.cache.stop()
    holder = sqlite3.connect(stand.cache.directory / "index.sqlite", isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    starting = asyncio.ensure_future(stand.cache.start())
    await asyncio.wait([starting], timeout=0.5)
    assert not starting.done(), "it waits"
    holder.close()
    await starting
    before = await stand.cache.metrics()
    got = await bounded(stand.pull(Asked.WARM_BLOB), 10.0)
    assert_harmless(got, stand.layer.content)
    return await aftermath(stand, Asked.WARM_BLOB, str(got), before)


COLD, WARM = Asked.COLD_BLOB, Asked.WARM_BLOB

DISK = (
    fault("the disk is full", COLD, _full_before, mend=_make_room),
    Fault("the disk fills up in mid-fill", COLD.value, 10.0, _full_in_mid_fill),
    fault("the folder for new blobs is read-only", COLD, _read_only_partials, mend=_writable_partials),
    fault("the blob's file is gone", WARM, _damaged(WARM, Path.unlink)),
    fault("the blob's file is half as long", WARM, _damaged(WARM, _truncate)),
    fault("the blob's file cannot be read", WARM, _damaged(WARM, _make_unreadable), mend=_make_readable),
    fault("a byte of the blob's file is wrong", Asked.SMALL_BLOB, _damaged(Asked.SMALL_BLOB, _flip, restart=True)),
    fault("a byte of a large blob's file is wrong, and the scrub has been", WARM, _flip_and_scrub),
    fault("the index is lost", WARM, _index(_lose)),
    fault("the index is cut to half", WARM, _index(_truncate)),
    fault("the index is garbage", WARM, _index(_overwrite)),
    fault("the index is of a newer version of the program", WARM, _index(_make_newer)),
    Fault("the index is locked at the start, for a while", WARM.value, 10.0, _index_locked),
    fault("the index is locked by another program", COLD, _lock_the_index, mend=_let_go),
    fault("an earlier run left the first half", COLD, _left(lambda s: s.layer.content[:HALF])),
    fault("an earlier run left all of it, without its name", COLD, _left(lambda s: s.layer.content)),
    fault("an earlier run left wrong bytes", COLD, _left(lambda s: bytes(HALF))),
    fault("an earlier run left more than there is", COLD, _left(lambda s: s.layer.content + bytes(1000))),
    fault("an earlier boot left the first half", COLD, _left(lambda s: s.layer.content[:HALF], boot_id="another")),
)
