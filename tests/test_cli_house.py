"""`ls`, `show`, `history`, `pin`, `purge`, `gc` and `scrub`, as processes that ask a running cache."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.config import CacheOptions
from proxy.oci.names import Digest
from tests.cache_rig import CacheRig
from tests.cli_rig import Output, admin, bare_environment, run, unused_port
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.house_rig import ALPINE, BASE, BUSYBOX, OTHER, ask, on_disk, pull, pulled, pulled_index

__all__ = ["bare_environment", "unused_port"]  # Fixtures: used by their names.


@dataclass(frozen=True)
class Told:
    """What a command said, and its exit code."""

    code: int | None
    out: str
    err: str


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "proxy", *arguments]


def environ(cache: CacheRig, **more: str) -> dict[str, str]:
    address = {"PULLTHROUGH_ADMIN__LISTEN": cache.app.admin_url.removeprefix("http://")}
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | address | more


async def say(cache: CacheRig, *arguments: str) -> Told:
    """Run a command against the cache, without a terminal."""
    process = await asyncio.create_subprocess_exec(
        *command(*arguments),
        env=environ(cache),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return Told(process.returncode, out.decode(), err.decode())


@dataclass
class Terminal:
    """A person at a terminal of 100 columns."""

    fd: int
    process: asyncio.subprocess.Process
    shown: bytearray

    async def sees(self, text: str) -> None:
        """Wait until this is on the screen."""
        await eventually(lambda: text.encode() in self._all(), label=f"{text!r} is shown")

    def types(self, text: str) -> None:
        os.write(self.fd, text.encode())

    async def ends(self) -> int:
        """The exit code."""
        await eventually(lambda: bool(self._all()) and self.process.returncode is not None, label="the command ends")
        self._all()
        assert self.process.returncode is not None
        return self.process.returncode

    def _all(self) -> bytes:
        with contextlib.suppress(OSError):  # Nothing there yet; or nobody any more.
            self.shown += os.read(self.fd, 65536)
        return bytes(self.shown)


async def at_terminal(cache: CacheRig, *arguments: str) -> Terminal:
    main_fd, other = pty.openpty()
    os.set_blocking(main_fd, False)
    process = await asyncio.create_subprocess_exec(
        *command(*arguments), env=environ(cache, COLUMNS="100"), stdin=other, stdout=other, stderr=other
    )
    os.close(other)
    return Terminal(main_fd, process, bytearray())


def lines(text: str) -> list[str]:
    """Without trailing blanks."""
    return [line.rstrip() for line in text.splitlines()]


# ls


async def test_ls_shows_repositories_in_columns(hub: FakeHub, cache: CacheRig) -> None:
    for tag in ("3.17", "3.18", "3.19", "3.20"):
        await pulled(hub, cache, ALPINE, tag, BASE)
        cache.clock.advance(86400)
    await pulled(hub, cache, OTHER, "v1", b"x" * 3 * 1024)
    await ask(cache, "PUT", "/api/pins/alpine")
    await ask(cache, "PUT", "/api/pins/never/pulled")

    said = await say(cache, "ls")

    assert (said.code, said.err) == (0, "")
    shown = lines(said.out)
    assert shown[0] == "REPOSITORY    TAGS                   SIZE  SHARED  LAST USED"
    assert shown[1].startswith("alpine        3.20, 3.19, 3.18 +1") and shown[1].endswith("-  1d ago     pinned")
    assert shown[2] == "never/pulled  -                         -       -  -          pinned"
    assert shown[3].startswith("owner/app     v1") and shown[3].endswith("-  just now")
    assert shown[4] == ""
    assert shown[5].startswith("3 repositories; the whole cache: ") and "shared" in shown[5]


async def test_ls_takes_a_pattern(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "3.20")
    await pulled(hub, cache, BUSYBOX, "latest")
    said = await say(cache, "ls", "busy")
    assert [line.split()[0] for line in said.out.splitlines()[:2]] == ["REPOSITORY", "busybox"]
    assert "1 repository;" in said.out
    said = await say(cache, "ls", "nginx*")
    assert said.out == "No repository is called like 'nginx*'; `pullthrough ls` lists them all.\n"


async def test_ls_says_when_there_is_nothing_and_what_to_do(cache: CacheRig) -> None:
    assert "Nothing is stored yet. `pullthrough setup CLIENT`" in (await say(cache, "ls")).out
    assert "Nothing has vanished upstream" in (await say(cache, "ls", "--vanished")).out


async def test_ls_says_when_the_index_was_lost(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "3.20")
    await cache.stop()
    for path in cache.directory.glob("index.sqlite*"):
        path.unlink()
    await cache.start()
    await eventually(lambda: cache.app.store.index.blob_count == 3, label="the inventory is taken")
    assert "No repository is known, but 3 blobs" in (await say(cache, "ls")).out


async def test_ls_asks_page_by_page(
    hub: FakeHub, cache: CacheRig, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await pulled(hub, cache, f"owner/app{number}", "latest")
    monkeypatch.setattr("proxy.cli.admin_client._PAGE", 2)
    monkeypatch.setenv("PULLTHROUGH_ADMIN__LISTEN", cache.app.admin_url.removeprefix("http://"))
    assert await asyncio.to_thread(main, ["ls"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[:6]] == ["REPOSITORY", *(f"owner/app{number}" for number in range(5))]
    assert await asyncio.to_thread(main, ["ls", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert ([each["name"] for each in document["repositories"]], "next" in document) == (
        [f"owner/app{number}" for number in range(5)],
        False,
    )


async def test_ls_vanished_lists_what_upstream_does_not_give_any_more(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "3.19")
    hub.untag(ALPINE, "3.19")
    cache.clock.advance(1000)
    await cache.get_manifest(ALPINE, "3.19")
    cache.clock.advance(7200)
    said = await say(cache, "ls", "--vanished")
    assert lines(said.out)[:2] == [
        "IMAGE        VANISHED  UPSTREAM SAYS",
        "alpine:3.19  2h ago    MANIFEST_UNKNOWN",
    ]
    document = json.loads((await say(cache, "ls", "--vanished", "--json")).out)
    assert [each["tag"] for each in document["vanished"]] == ["3.19"]
    assert "1 tag vanished" in (await say(cache, "ls")).out


async def test_columns_fit_the_terminal(hub: FakeHub, cache: CacheRig) -> None:
    for number in range(3):
        await pulled(hub, cache, "owner/" + "a" * 30, f"a-very-long-tag-of-an-image-{number}" + "x" * 60)
    terminal = await at_terminal(cache, "ls")
    assert await terminal.ends() == 0
    shown = terminal.shown.decode().splitlines()
    assert max(len(line) for line in shown[:2]) <= 100
    assert "..." in shown[1] and shown[1].endswith("just now")
    os.close(terminal.fd)


# A pipe whose reader leaves


@pytest.mark.parametrize("arguments", [["ls"], ["doctor", "--no-canary", "--no-clients"], ["check-config"]])
async def test_a_reader_that_leaves_is_no_traceback(cache: CacheRig, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        *command(*arguments), env=environ(cache), stdout=writing, stderr=asyncio.subprocess.PIPE
    )
    os.close(writing)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, err) == (1, b"")


# show and history


async def test_show_a_repository(hub: FakeHub, cache: CacheRig) -> None:
    image = await pulled(hub, cache, ALPINE, "3.20", b"x" * 2048)
    cache.clock.advance(100)
    latest = await pulled(hub, cache, ALPINE, "latest")
    old = hub.add_image(ALPINE, None, [b"by digest"])
    await pull(cache, ALPINE, old.digest)
    cache.clock.advance(250)

    said = await say(cache, "show", "alpine")

    shown = lines(said.out)
    assert shown[0] == "docker.io/library/alpine, public"
    assert "in 9 blobs" in shown[1] and shown[1].endswith("last used 4m ago")
    assert shown[3].split() == ["TAG", "DIGEST", "SIZE", "LAST", "USED", "FRESHNESS"]
    assert shown[4].startswith(f"3.20    {image.digest[:19]}") and shown[4].endswith("stale, confirmed 5m ago")
    assert shown[5].startswith(f"latest  {latest.digest[:19]}") and shown[5].endswith("fresh for 50s")
    assert shown[8].startswith(old.digest[:19])
    assert image.digest in (await say(cache, "show", "alpine", "--no-trunc")).out


async def test_show_an_image(hub: FakeHub, cache: CacheRig) -> None:
    index = await pulled_index(hub, cache, ALPINE, "latest")
    held, other = index.images
    hub.add_image(OTHER, "v1", [held.layers[0]])
    await pull(cache, OTHER, "v1")
    await ask(cache, "PUT", "/api/pins/alpine")
    cache.clock.advance(60)

    shown = lines((await say(cache, "show", "alpine:latest")).out)

    assert shown[0] == "docker.io/library/alpine:latest"
    assert f"  digest       {index.digest}" in shown
    assert "  freshness    fresh for 4m" in shown
    assert "  last used    1m ago" in shown
    assert any(line.startswith("  pinned       ") and line.endswith(": never evicted") for line in shown)
    assert any(line.startswith("  on disk      ") and line.endswith("4 of 5 known parts") for line in shown)
    parts = shown[shown.index("") + 2 :]
    assert [line[:24].rstrip() for line in parts] == [
        "index",
        "  manifest linux/amd64",
        "    config",
        "    layer",
        "  manifest linux/arm64",
    ]
    assert "  yes      owner/app" in parts[3]
    assert parts[4].endswith("  no")
    document = json.loads((await say(cache, "show", "alpine:latest", "--json")).out)
    assert document["image"]["parts"][1]["digest"] == other.digest


async def test_what_is_not_there_is_said_and_exits_with_1(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "3.20")
    said = await say(cache, "show", "alpine:3.21")
    assert (said.code, said.err) == (1, "pullthrough: alpine has no tag 3.21 here; it has 3.20\n")
    assert (await say(cache, "history", "nginx")).code == 1


@pytest.mark.parametrize("arguments", [["show", "A B"], ["purge", "--yes", "../x"], ["pin", "alpine:3.20"]])
async def test_what_is_no_name_exits_with_2(cache: CacheRig, arguments: list[str]) -> None:
    said = await say(cache, *arguments)
    assert (said.code, said.err.startswith("pullthrough: ")) == (2, True)


async def test_history_shows_what_tags_were(hub: FakeHub, cache: CacheRig) -> None:
    old = await pulled(hub, cache, ALPINE, "latest", b"old")
    cache.clock.advance(86400)
    new = await pulled(hub, cache, ALPINE, "latest", b"new")
    await cache.app.store.removal.remove([Digest.parse(old.digest)])

    shown = lines((await say(cache, "history", "alpine")).out)

    assert shown[0].split() == ["TAG", "DIGEST", "FIRST", "SEEN", "LAST", "SEEN", "ON", "DISK"]
    assert shown[1].startswith(f"latest  {new.digest[:19]}  2027-01-16 08:00 UTC (just now)")
    assert shown[1].endswith("yes      now")
    assert shown[2].startswith(f"latest  {old.digest[:19]}  2027-01-15 08:00 UTC (1d ago)")
    assert shown[2].endswith("no")
    document = json.loads((await say(cache, "history", "alpine:latest", "--json")).out)
    assert [each["digest"] for each in document["history"]] == [new.digest, old.digest]


# pin


async def test_pin_and_unpin(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "3.20")
    said = await say(cache, "pin", "alpine")
    assert said.out.startswith("docker.io/library/alpine is pinned. Stored of it: 3 blobs, ")
    assert json.loads((await say(cache, "pin", "alpine", "--json")).out)["blobs"] == 3
    assert (await say(cache, "unpin", "alpine")).out == "docker.io/library/alpine is not pinned any more.\n"
    said = await say(cache, "unpin", "alpine")
    assert (said.code, said.err) == (1, "pullthrough: alpine is not pinned\n")
    said = await say(cache, "pin", "ghcr.io/owner/app")
    assert (said.code, said.err) == (1, "pullthrough: ghcr.io is no upstream of this cache; it has docker.io\n")


# purge


async def test_purge_says_what_went(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "3.20", BASE, b"alpine")
    app = await pulled(hub, cache, OTHER, "v1", BASE, b"app")
    said = await say(cache, "purge", "alpine:3.20", "--yes")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("docker.io/library/alpine: 3 blobs (")
    assert "removed, and the tag 3.20.\nStill on disk, since other repositories hold the same: 1 blob" in said.out
    assert cache.blobs_on_disk() == on_disk(app)


async def test_purge_refuses_where_there_is_nobody_to_ask(hub: FakeHub, cache: CacheRig) -> None:
    image = await pulled(hub, cache, ALPINE, "3.20")
    said = await say(cache, "purge", "alpine:3.20")
    assert (said.code, "give --yes" in said.err) == (2, True)
    assert cache.blobs_on_disk() == on_disk(image)


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("yes\n", 0), ("\n", 1), ("n\n", 1), ("\x04", 1)])
async def test_purge_asks_at_a_terminal(hub: FakeHub, cache: CacheRig, answer: str, code: int) -> None:
    image = await pulled(hub, cache, ALPINE, "3.20")
    terminal = await at_terminal(cache, "purge", "alpine:3.20")
    await terminal.sees("Remove it? [y/N]")
    assert b"3 blobs" in terminal.shown
    assert cache.blobs_on_disk() == on_disk(image)
    terminal.types(answer)
    assert await terminal.ends() == code
    assert cache.blobs_on_disk() == (set() if code == 0 else on_disk(image))
    os.close(terminal.fd)


async def test_a_dry_run_of_purge_shows_each_blob(hub: FakeHub, cache: CacheRig) -> None:
    image = await pulled(hub, cache, ALPINE, "3.20", BASE, b"alpine")
    await pulled(hub, cache, OTHER, "v1", BASE)
    said = await say(cache, "purge", "--repository", "alpine", "--dry-run")
    assert "would go, and the tag 3.20" in said.out
    assert all(digest[:19] in said.out for digest in on_disk(image))
    assert "stays: held by 1 other repository" in said.out
    assert len(cache.blobs_on_disk()) == 6
    document = json.loads((await say(cache, "purge", "--older-than", "0s", "--dry-run", "--json")).out)
    assert (document["dry_run"], document["removed"]["blobs"]) == (True, 0)


async def test_purge_by_age_goes_on_until_all_is_gone(
    hub: FakeHub, cache: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.housekeeping.house.PIECE_BLOBS", 2)
    monkeypatch.setattr("proxy.housekeeping.house.STEP_BLOBS", 2)
    for tag in ("1", "2", "3"):
        await pulled(hub, cache, ALPINE, tag)
    cache.clock.advance(31 * 86400)
    said = await say(cache, "purge", "--older-than", "30d", "--yes")
    assert said.out.startswith("Not used for so long: 9 blobs (")
    assert cache.blobs_on_disk() == set()


@pytest.mark.parametrize(
    "arguments", [[], ["a", "--repository", "a"], ["--older-than", "soon"], ["--older-than", "-1"]]
)
def test_a_purge_of_nothing_or_of_two_things_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["purge", *arguments])
    assert caught.value.code == 2


# gc


async def test_gc_shows_what_would_go_and_why(hub: FakeHub, tmp_path: Path) -> None:
    options = {"cache": CacheOptions(directory=tmp_path, max_age=3600.0, grace=60.0)}
    async with CacheRig(hub.url, tmp_path, options=options) as cache:
        said = await say(cache, "gc", "--dry-run")
        assert said.out == "Nothing has to go: there is room enough, and nothing is too old.\n"
        old = await pulled(hub, cache, ALPINE, "3.20")
        await pulled(hub, cache, BUSYBOX, "latest")
        await ask(cache, "PUT", "/api/pins/busybox")
        cache.clock.advance(7200)

        said = await say(cache, "gc", "--dry-run")
        assert "would go:   3 blobs (" in said.out and "not used for too long ([cache] max_age)" in said.out
        assert "would stay: 3 blobs (" in said.out and "its repository is pinned" in said.out
        assert all(digest[:19] in said.out for digest in on_disk(old))
        assert len(cache.blobs_on_disk()) == 6

        said = await say(cache, "gc")
        assert said.out.startswith("3 blobs evicted, ")
        assert not on_disk(old) & cache.blobs_on_disk()
        assert len(cache.blobs_on_disk()) == 3
        assert json.loads((await say(cache, "gc", "--json")).out)["blobs"] == 0


# scrub


async def test_scrub_reads_everything_and_says_how_it_went(hub: FakeHub, cache: CacheRig) -> None:
    image = await pulled(hub, cache, ALPINE, "3.20", b"one", b"two")
    said = await say(cache, "scrub")
    assert (said.code, said.out.startswith("All is well: 4 files, ")) == (0, True)

    damage(cache, image.layers[0])
    said = await say(cache, "scrub", "--rate", "1GiB")
    assert (said.code, "1 bad, 0 missing" in said.out) == (1, True)
    document = json.loads((await say(cache, "scrub", "--status", "--json")).out)
    assert (document["running"], document["bad"], document["position"]) == (False, 1, 1.0)


async def test_scrub_shows_progress_on_a_terminal_and_goes_on_without_it(hub: FakeHub, cache: CacheRig) -> None:
    for number in range(4):
        await pulled(hub, cache, ALPINE, str(number), bytes([number]) * 200_000)
    terminal = await at_terminal(cache, "scrub", "--rate", "64KiB")
    await terminal.sees("[")
    await terminal.sees("%")
    terminal.process.send_signal(signal.SIGINT)
    assert await terminal.ends() == 1
    assert b"The scrub goes on." in terminal.shown
    assert b"Traceback" not in terminal.shown
    os.close(terminal.fd)

    said = await say(cache, "scrub", "--status")
    assert (said.code, said.out.startswith("A scrub runs since ")) == (0, True)
    said = await say(cache, "scrub", "--cancel")
    assert (said.code, said.out.startswith("The scrub was ended at ")) == (0, True)


def damage(cache: CacheRig, digest: str) -> None:
    path = cache.app.store.blobs.path(Digest.parse(digest))
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


# A process that does not answer, or not as it should

ASKING = [
    ["ls"],
    ["show", "a"],
    ["history", "a"],
    ["pin", "a"],
    ["unpin", "a"],
    ["gc"],
    ["scrub"],
    ["purge", "a", "--yes"],
]


@pytest.mark.parametrize("arguments", ASKING)
def test_when_nothing_listens_it_is_said_what_to_look_at(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, unused_port: int, arguments: list[str]
) -> None:
    monkeypatch.setenv("PULLTHROUGH_ADMIN__LISTEN", f"127.0.0.1:{unused_port}")
    assert main(arguments) == 1
    assert "is `pullthrough serve` running" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"surprise": 1}', b"\xff", b'{"error": 5, "next": {}}'])
@pytest.mark.parametrize("arguments", [["ls"], ["show", "a"], ["history", "a"]])
def test_something_else_that_answers_is_no_traceback(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, answer: bytes, arguments: list[str]
) -> None:
    with admin(answer) as port:
        monkeypatch.setenv("PULLTHROUGH_ADMIN__LISTEN", f"127.0.0.1:{port}")
        assert main(arguments) == 1
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_every_command_is_in_the_help() -> None:
    told = run("--help").stdout
    assert all(f"\n    {name} " in told for name in ("ls", "show", "history", "pin", "unpin", "purge", "gc", "scrub"))
