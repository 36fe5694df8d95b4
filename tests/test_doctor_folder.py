"""What `doctor` says of the cache folder: judged from facts by table, and looked at on real disks."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config import CacheOptions, Config
from proxy.doctor.findings import State
from proxy.doctor.folder import filesystem_of, lock_owners, look_at, user_name
from proxy.doctor.judge.folder import Folder, Holder, judge_folder
from tests.doctor_rig import SetUp, case_of, healthy, short, wrong
from tests.programs import skip_or_fail

__all__ = ["healthy", "short"]  # Fixtures: used by their names.

GOOD = Folder(Path("/cache"), filesystem="ext4", free_bytes=10 * 2**30, free_files=10**6)
HOLDER = Holder(123, "pullthrough")
NOBODY = 65534


@pytest.mark.parametrize(
    ("folder", "serving", "text", "cure"),
    [
        (replace(GOOD, read_only=True), None, "mounted read-only", "Mount it writable"),
        (replace(GOOD, problem=errno.EROFS), None, "mounted read-only", "Mount it writable"),
        (replace(GOOD, problem=errno.EACCES), None, "ann may not write into", "install -d -o ann /cache"),
        (replace(GOOD, exists=False, problem=errno.EACCES), None, "ann may not make", "install -d -o ann"),
        (replace(GOOD, not_ours="index.sqlite"), None, "may not write /cache/index.sqlite", "chown -R ann /cache"),
        (replace(GOOD, filesystem="nfs4"), None, "network file system (nfs4)", "Use a local disk"),
        (replace(GOOD, problem=errno.EIO), None, "Input/output error", "Look at that disk"),
        (replace(GOOD, problem=errno.ENOSPC, free_bytes=0), None, "is full: 0B free", "Make room"),
        (replace(GOOD, free_bytes=2**20), None, "is almost full: 1MiB free", "Make room"),
        (replace(GOOD, free_files=3), None, "no more files fit", "Make room"),
        (replace(GOOD, problem=errno.EDQUOT), None, "quota", "Make room"),
        (replace(GOOD, is_folder=False), None, "is not a folder", "Remove it"),
        (replace(GOOD, holders=(HOLDER,)), False, "used by pullthrough (pid 123)", "another configuration"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(folder: Folder, serving: bool | None, text: str, cure: str) -> None:
    finding = judge_folder(folder, "ann", serving=serving)
    assert finding.state is State.FAILED
    assert text in finding.text
    assert cure in (finding.cure or "")


@pytest.mark.parametrize(
    ("folder", "serving", "text"),
    [
        (GOOD, None, "/cache: ext4, 10GiB free"),
        (replace(GOOD, exists=False), None, "will be made"),
        (replace(GOOD, filesystem="tmpfs"), None, "gone at a restart"),
        (replace(GOOD, filesystem="overlay"), None, "mount a volume"),
        (replace(GOOD, free_files=None), None, "10GiB free"),
        (replace(GOOD, holders=(HOLDER,)), True, "in use by pullthrough (pid 123)"),
        (replace(GOOD, holders=(HOLDER, Holder(124))), True, "by pullthrough (pid 123) and a process (pid 124)"),
        (replace(GOOD, problem=errno.EACCES), True, "in use by pullthrough, which runs as somebody else than ann"),
        (replace(GOOD, not_ours="lock"), True, "runs as somebody else"),
        (replace(GOOD, holders=(Holder(None),)), None, "in use by a process"),
    ],
)
def test_what_is_well_with_a_folder_is_told(folder: Folder, serving: bool | None, text: str) -> None:
    finding = judge_folder(folder, "ann", serving=serving)
    assert finding.state is State.OK
    assert text in finding.text


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:30 / /mnt rw - tmpfs tmpfs rw
31 30 0:31 / /mnt/with\\040space rw - xfs /dev/vdb rw
32 22 0:32 / /mnt rw - btrfs /dev/vdc rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/var/lib", "ext4"), ("/mnt/cache", "btrfs"), ("/mnt/with space/cache", "xfs"), ("/mntx", "ext4")],
)
def test_the_file_system_is_that_of_the_nearest_mount(path: str, expected: str) -> None:
    assert filesystem_of(MOUNTS, Path(path)) == expected


def test_the_owners_of_a_lock_are_found_by_its_inode() -> None:
    locks = (
        "1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF\n2: FLOCK  ADVISORY  READ 12 fe:00:77 0 EOF\n"
        "3: FLOCK  ADVISORY  READ 13 fe:00:77 0 EOF\n4: FLOCK  ADVISORY  READ 14 fe:00:78 0 EOF\n"
    )
    assert lock_owners(locks, 77) == [12, 13]
    assert lock_owners(locks, 7) == []
    assert lock_owners("2: FLOCK  ADVISORY  WRITE 0 fe:00:77 0 EOF", 77) == []


# On disks


def test_a_look_leaves_nothing_behind(tmp_path: Path) -> None:
    found = look_at(tmp_path)
    assert (found.exists, found.problem, found.not_ours, found.holders) == (True, None, None, ())
    assert list(tmp_path.iterdir()) == []

    missing = look_at(tmp_path / "not" / "yet")
    assert (missing.exists, missing.problem) == (False, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_the_holder_of_the_lock_is_found(tmp_path: Path, kind: int) -> None:
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, kind)
        holders = look_at(tmp_path).holders
    assert [each.pid for each in holders] == [os.getpid()]
    assert look_at(tmp_path).holders == ()


@pytest.mark.parametrize("below", ["", "new/cache"])
def test_a_folder_of_somebody_else_is_named(below: str) -> None:
    with as_nobody() as folder:
        finding = judge_folder(look_at(folder / below), user_name(), serving=None)
    assert finding.state is State.FAILED
    assert f"install -d -o {user_name_of(NOBODY)}" in (finding.cure or "")


def test_files_of_an_earlier_user_are_named() -> None:
    with as_nobody(mode=0o777, files=("index.sqlite",)) as folder:
        finding = judge_folder(look_at(folder), user_name(), serving=None)
    assert "index.sqlite: it was probably run as another user" in finding.text


@pytest.mark.clients
async def test_a_full_disk_is_named(healthy: SetUp) -> None:
    with mounted("size=1m") as disk:
        (disk / "filler").write_bytes(bytes(2**20))
        found = await healthy.examine(cache=CacheOptions(directory=disk))
    assert wrong(found)["cache folder"].startswith(f"the disk of {disk} is full: 0B free")
    assert "Make room there" in (found["cache folder"].cure or "")


@pytest.mark.clients
async def test_a_read_only_disk_is_named(healthy: SetUp) -> None:
    with mounted("ro") as disk:
        found = await healthy.examine(cache=CacheOptions(directory=disk))
        below = await healthy.examine(cache=CacheOptions(directory=disk / "cache"))
    assert "mounted read-only" in wrong(found)["cache folder"]
    assert "mounted read-only" in wrong(below)["cache folder"]
    assert "Mount it writable" in (found["cache folder"].cure or "")


def test_no_case_is_made_of_a_cache_that_is_elsewhere() -> None:
    case = case_of(Config(), None, "http://cache.example:5000")
    assert case.cache.given


@contextmanager
def mounted(options: str) -> Iterator[Path]:
    """A small disk in memory."""
    if os.geteuid() != 0:
        skip_or_fail("needs root, to mount a disk")
    with tempfile.TemporaryDirectory(prefix="pt-disk-") as name:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", name], capture_output=True, check=False)
        if made.returncode != 0:
            skip_or_fail(f"a disk cannot be mounted here: {made.stderr.decode(errors='replace').strip()}")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


@contextmanager
def as_nobody(mode: int = 0o755, files: tuple[str, ...] = ()) -> Iterator[Path]:
    """A folder of root's, and this process somebody who is not."""
    if os.geteuid() != 0:
        skip_or_fail("needs root, to be somebody else for a while")
    with tempfile.TemporaryDirectory(prefix="pt-root-") as name:
        folder = Path(name)
        folder.chmod(mode)
        for each in files:
            (folder / each).touch(mode=0o600)
        os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(0)


def user_name_of(uid: int) -> str:
    import pwd

    return pwd.getpwuid(uid).pw_name
