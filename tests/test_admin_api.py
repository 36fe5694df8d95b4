"""The admin API by the door: what is stored, page by page, and who may change it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config import UpstreamOptions
from proxy.oci.names import Digest
from proxy.server.peers import is_local
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub
from tests.house_rig import ALPINE, BASE, BUSYBOX, OTHER, ask, on_disk, pull, pulled, pulled_index, told

NOTHING = str(Digest.of(b"nothing"))


# Repositories


async def test_repositories_are_told_with_what_they_hold_and_share(hub: FakeHub, cache: CacheRig) -> None:
    alpine = await pulled(hub, cache, ALPINE, "3.20", BASE, b"alpine")
    cache.clock.advance(60)
    app = await pulled(hub, cache, OTHER, "v1", BASE, b"app")

    document = await told(cache, "/api/repositories")

    sizes = {digest: hub.content_of(digest).size for digest in (*alpine.blobs, *app.blobs)}
    first, second = document["repositories"]
    assert first == {
        "repository": "docker.io/library/alpine",
        "name": "alpine",
        "tags": ["3.20"],
        "tag_count": 1,
        "blobs": 4,
        "bytes": len(alpine.body) + sum(sizes[digest] for digest in alpine.blobs),
        "shared_bytes": len(BASE),
        "used_at": cache.clock.now - 60,
        "pinned_at": None,
        "vanished_at": None,
        "vanished_tags": 0,
    }
    assert (second["name"], second["used_at"], second["shared_bytes"]) == ("owner/app", cache.clock.now, len(BASE))
    assert document["cache"] == {"blobs": 7, "bytes": first["bytes"] + second["bytes"] - len(BASE)}
    assert (document["next"], document["now"]) == (None, cache.clock.now)


async def test_repositories_come_in_pages(hub: FakeHub, cache: CacheRig) -> None:
    for name in ("a/one", "a/two", "b/one", "library/c"):
        await pulled(hub, cache, name, "latest")

    first = await told(cache, "/api/repositories?limit=3")
    assert [each["name"] for each in first["repositories"]] == ["a/one", "a/two", "b/one"]
    second = await told(cache, f"/api/repositories?limit=3&after={first['next']}")
    assert ([each["name"] for each in second["repositories"]], second["next"]) == (["c"], None)


@pytest.mark.parametrize(
    ("match", "names"),
    [
        ("alp", ["alpine"]),
        ("alpine", ["alpine"]),
        ("*", ["alpine", "busybox", "owner/app"]),
        ("b*", ["busybox"]),
        ("[ab]*", ["alpine", "busybox"]),
        ("owner/*", ["owner/app"]),
        ("docker.io/*", ["alpine", "busybox", "owner/app"]),
        ("library/b", ["busybox"]),
        ("app*", []),
        ("ALPINE", []),
        ("'; DROP TABLE links; --", []),
    ],
)
async def test_a_pattern_is_for_whole_names_and_a_text_for_a_part_of_them(
    hub: FakeHub, cache: CacheRig, match: str, names: list[str]
) -> None:
    for name in (ALPINE, BUSYBOX, OTHER):
        await pulled(hub, cache, name, "latest")
    document = await told(cache, "/api/repositories", match=match)
    assert [each["name"] for each in document["repositories"]] == names


async def test_what_holds_nothing_on_disk_is_not_listed_unless_it_is_pinned(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "latest")
    await pulled(hub, cache, BUSYBOX, "latest")
    await ask(cache, "PUT", "/api/pins/alpine")
    await ask(cache, "PUT", "/api/pins/never/pulled")
    cache.clock.advance(3600)
    await ask(cache, "DELETE", "/api/pins/alpine")
    await ask(cache, "POST", "/api/purge", {"older_than": 60})

    document = await told(cache, "/api/repositories")
    assert [(each["name"], each["blobs"], each["used_at"]) for each in document["repositories"]] == [
        ("never/pulled", 0, None)
    ]


async def test_the_default_upstream_has_the_short_names(hub: FakeHub, tmp_path: Path) -> None:
    quay = UpstreamOptions(name="quay.io", url=hub.url)
    hub_io = UpstreamOptions(name="docker.io", url=hub.url)
    async with CacheRig(hub.url, tmp_path, options={"upstreams": (quay, hub_io)}) as cache:
        await pulled(hub, cache, "app", "latest")
        hub.add_image(ALPINE, "latest")
        await cache.get_manifest(f"docker.io/{ALPINE}", "latest")
        document = await told(cache, "/api/repositories")
        assert [each["name"] for each in document["repositories"]] == ["docker.io/library/alpine", "app"]
        assert (await told(cache, "/api/images/app:latest"))["repository"] == "quay.io/app"


# One repository, one image


async def test_a_repository_is_shown_with_its_tags(hub: FakeHub, cache: CacheRig) -> None:
    image = await pulled(hub, cache, ALPINE, "3.20")
    index = await pulled_index(hub, cache, ALPINE, "latest")
    by_digest = hub.add_image(ALPINE, None, [b"by digest"])
    await pull(cache, ALPINE, by_digest.digest)

    document = await told(cache, "/api/images/alpine")

    first, second = document["tags"]
    assert first == {
        "tag": "3.20",
        "digest": image.digest,
        "media_type": image.media_type,
        "previous": None,
        "checked_at": cache.clock.now,
        "fresh_until": cache.clock.now + 300,
        "source": None,
        "stored": True,
        "bytes": len(image.body) + sum(hub.content_of(digest).size for digest in image.blobs),
        "used_at": cache.clock.now,
        "vanished_at": None,
    }
    assert (second["tag"], second["digest"]) == ("latest", index.digest)
    assert [each["digest"] for each in document["untagged"]] == [by_digest.digest]
    assert (document["public"], document["next"]) == (True, None)


async def test_the_tags_of_a_repository_come_in_pages(hub: FakeHub, cache: CacheRig) -> None:
    for tag in ("1", "2", "3"):
        await pulled(hub, cache, ALPINE, tag)
    first = await told(cache, "/api/images/alpine", limit=2)
    second = await told(cache, "/api/images/alpine", limit=2, after=first["next"])
    assert [each["tag"] for each in first["tags"] + second["tags"]] == ["1", "2", "3"]
    assert second["next"] is None


async def test_an_image_is_shown_with_all_its_parts(hub: FakeHub, cache: CacheRig) -> None:
    index = await pulled_index(hub, cache, ALPINE, "latest")
    held, other = index.images
    hub.add_image(OTHER, "v1", [held.layers[0]])
    await pull(cache, OTHER, "v1")
    cache.clock.advance(10)

    document = await told(cache, "/api/images/alpine:latest")

    assert (document["digest"], document["fresh_until"]) == (index.digest, cache.clock.now + 290)
    assert (document["first_seen"], document["last_seen"]) == (cache.clock.now - 10, cache.clock.now - 10)
    image = document["image"]
    assert (image["kind"], image["digest"], image["stored"]) == ("index", index.digest, True)
    first, second = image["parts"]
    assert (first["kind"], first["platform"], first["stored"]) == ("manifest", "linux/amd64", True)
    assert (second["platform"], second["stored"], second["parts"]) == ("linux/arm64", False, [])
    assert (second["digest"], second["size"]) == (other.digest, len(other.body))
    config, layer = first["parts"]
    assert (config["kind"], config["stored"]) == ("config", True)
    assert (layer["kind"], layer["size"]) == ("layer", hub.content_of(held.layers[0]).size)
    assert (layer["shared_with"], layer["shared_count"]) == (["owner/app"], 1)


async def test_an_image_that_is_no_index_has_the_platform_of_its_config(hub: FakeHub, cache: CacheRig) -> None:
    image = await pulled(hub, cache, ALPINE, "3.20")
    for reference in (":3.20", f"@{image.digest}"):
        document = await told(cache, f"/api/images/alpine{reference}")
        assert document["digest"] == image.digest
        assert document["image"]["platform"] == "linux/amd64"


async def test_what_was_evicted_of_an_image_is_shown_as_not_stored(hub: FakeHub, cache: CacheRig) -> None:
    image = await pulled(hub, cache, ALPINE, "3.20")
    await cache.app.store.removal.remove([Digest.parse(image.layers[0])])
    (config, layer) = (await told(cache, "/api/images/alpine:3.20"))["image"]["parts"]
    assert (config["stored"], layer["stored"], layer["used_at"]) == (True, False, None)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("images/nothing", "nothing of nothing is cached"),
        ("images/nothing:1", "nothing of nothing is cached"),
        ("images/alpine:9", "alpine has no tag 9 here; it has 3.20"),
        (f"images/alpine@{NOTHING}", f"alpine is not known to have {NOTHING}"),
        ("history/nothing", "nothing is known of nothing: it was never asked for here"),
        ("history/alpine:9", "nothing is known of alpine:9: it was never asked for here"),
    ],
)
async def test_what_is_not_known_is_said_to_be(hub: FakeHub, cache: CacheRig, path: str, said: str) -> None:
    await pulled(hub, cache, ALPINE, "3.20")
    assert await ask(cache, "GET", f"/api/{path}") == (404, {"error": said})


# History


async def test_history_tells_what_a_tag_was_newest_first(hub: FakeHub, cache: CacheRig) -> None:
    old = await pulled(hub, cache, ALPINE, "latest", b"old")
    began = cache.clock.now
    cache.clock.advance(1000)
    await pull(cache, ALPINE, "latest")
    cache.clock.advance(1000)
    new = await pulled(hub, cache, ALPINE, "latest", b"new")
    await cache.app.store.removal.remove([Digest.parse(old.digest)])

    document = await told(cache, "/api/history/alpine")

    assert document["history"] == [
        {
            "tag": "latest",
            "digest": new.digest,
            "first_seen": began + 2000,
            "last_seen": began + 2000,
            "current": True,
            "stored": True,
        },
        {
            "tag": "latest",
            "digest": old.digest,
            "first_seen": began,
            "last_seen": began + 1000,
            "current": False,
            "stored": False,
        },
    ]
    by_digest = await told(cache, f"/api/history/alpine@{old.digest}")
    assert [each["digest"] for each in by_digest["history"]] == [old.digest]


async def test_history_comes_in_pages(hub: FakeHub, cache: CacheRig) -> None:
    for tag in ("1", "2", "3", "4"):
        await pulled(hub, cache, ALPINE, tag)
        if tag == "2":
            cache.clock.advance(10)
    seen, after = [], ""
    while True:
        page = await told(cache, "/api/history/alpine", limit=1, after=after)
        seen += [each["tag"] for each in page["history"]]
        after = page["next"]
        if after is None:
            break
    assert seen == ["3", "4", "1", "2"]


# Vanished


async def test_what_vanished_upstream_is_listed_while_it_is_held(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "3.19")
    await pulled(hub, cache, ALPINE, "3.20")
    hub.untag(ALPINE, "3.19")
    cache.clock.advance(1000)
    for tag in ("3.19", "3.20"):
        assert (await cache.get_manifest(ALPINE, tag)).status == 200

    document = await told(cache, "/api/vanished")

    (gone,) = document["vanished"]
    assert (gone["name"], gone["tag"], gone["vanished_at"]) == ("alpine", "3.19", cache.clock.now)
    assert (await told(cache, "/api/vanished", match="busybox"))["vanished"] == []
    assert (await told(cache, "/api/vanished", after="docker.io/library/alpine:3.19"))["vanished"] == []
    (listed,) = (await told(cache, "/api/repositories"))["repositories"]
    assert (listed["vanished_tags"], listed["vanished_at"]) == (1, None)
    tags = (await told(cache, "/api/images/alpine"))["tags"]
    assert [each["vanished_at"] for each in tags] == [cache.clock.now, None]

    await ask(cache, "POST", "/api/purge", {"image": "alpine:3.19"})
    assert (await told(cache, "/api/vanished"))["vanished"] == []
    assert (await told(cache, "/api/repositories"))["repositories"][0]["vanished_tags"] == 0


# Who may change something


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/purge"), ("PUT", "/api/pins/a"), ("DELETE", "/api/scrub")])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_a_web_page_changes_nothing(
    hub: FakeHub, cache: CacheRig, method: str, path: str, headers: dict[str, str]
) -> None:
    await pulled(hub, cache, ALPINE, "3.20")
    status, document = await ask(cache, method, path, {"repository": "alpine"}, headers=headers)
    assert (status, "web pages" in document["error"]) == (403, True)
    assert len((await told(cache, "/api/repositories"))["repositories"]) == 1
    assert (await told(cache, "/api/pins"))["pins"] == []


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_form_changes_nothing(cache: CacheRig, content_type: str) -> None:
    body = {"older_than": 0}
    status, document = await ask(cache, "POST", "/api/purge", body, headers={"Content-Type": content_type})
    assert (status, "Content-Type: application/json" in document["error"]) == (415, True)


@pytest.mark.parametrize(
    ("peer", "own", "local"),
    [
        (("127.0.0.1", 40000), ("127.0.0.1", 5001), True),
        (("127.8.9.10", 40000), ("127.0.0.1", 5001), True),
        (("::1", 40000, 0, 0), ("::1", 5001, 0, 0), True),
        (("::ffff:127.0.0.1", 40000, 0, 0), ("::ffff:127.0.0.1", 5001, 0, 0), True),
        (("192.0.2.1", 40000), ("192.0.2.1", 5001), True),
        ("", "/run/pullthrough.sock", True),
        (("172.17.0.1", 40000), ("172.17.0.2", 5001), False),
        (("fe80::1%eth0", 40000, 0, 2), ("fe80::2%eth0", 5001, 0, 2), False),
        (("::ffff:192.0.2.1", 40000, 0, 0), ("::ffff:192.0.2.2", 5001, 0, 0), False),
        (None, None, False),
    ],
)
def test_who_is_on_this_machine(peer: object, own: object, local: bool) -> None:
    assert is_local(peer, own) is local


async def test_changes_are_taken_from_this_machine_only_unless_the_configuration_says_otherwise(
    hub: FakeHub, cache: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.server.admin_api.is_local", lambda peer, own: False)
    for method, path in (("PUT", "/api/pins/alpine"), ("POST", "/api/purge"), ("POST", "/api/gc")):
        status, document = await ask(cache, method, path, {})
        assert (status, "from this machine only" in document["error"]) == (403, True)
    assert (await told(cache, "/api/scrub"))["keeper"] is True

    everybody = replace(cache.app.config, admin=replace(cache.app.config.admin, changes="all"))
    await cache.app.reload(everybody)
    assert (await ask(cache, "PUT", "/api/pins/alpine"))[0] == 200


async def test_a_person_at_a_terminal_may_say_that_no_page_sent_it(cache: CacheRig) -> None:
    status, _ = await ask(cache, "PUT", "/api/pins/alpine", headers={"Sec-Fetch-Site": "none"})
    assert status == 200


@pytest.mark.parametrize(
    ("method", "path", "data", "expected"),
    [
        ("POST", "/api/purge", b"{", 400),
        ("POST", "/api/purge", b"[" * 50_000, 400),
        ("POST", "/api/purge", b"[]", 400),
        ("POST", "/api/purge", b"", 400),
        ("POST", "/api/purge", b"{}", 400),
        ("POST", "/api/purge", b'{"image": "a", "repository": "a"}', 400),
        ("POST", "/api/purge", b'{"image": 5}', 400),
        ("POST", "/api/purge", b'{"image": null}', 400),
        ("POST", "/api/purge", b'{"image": "A B"}', 400),
        ("POST", "/api/purge", b'{"image": "\\ud800"}', 400),
        ("POST", "/api/purge", b'{"image": "../../etc/passwd"}', 400),
        ("POST", "/api/purge", b'{"repository": "alpine:3.20"}', 400),
        ("POST", "/api/purge", b'{"repository": "alpine", "dryrun": true}', 400),
        ("POST", "/api/purge", b'{"repository": "alpine", "dry_run": "no"}', 400),
        ("POST", "/api/purge", b'{"older_than": -1}', 400),
        ("POST", "/api/purge", b'{"older_than": NaN}', 400),
        ("POST", "/api/purge", b'{"older_than": 1e400}', 400),
        ("POST", "/api/purge", b'{"older_than": true}', 400),
        ("POST", "/api/purge", b'{"older_than": "30d"}', 400),
        ("POST", "/api/purge", b'"' + b"x" * 70_000 + b'"', 413),
        ("POST", "/api/purge", b'{"repository": "nothing"}', 404),
        ("POST", "/api/purge", b'{"image": "nothing"}', 404),
        ("POST", "/api/gc", b'{"dry_run": 1}', 400),
        ("POST", "/api/scrub", b'{"rate": "fast"}', 400),
        ("PUT", "/api/pins/alpine:3.20", None, 400),
        ("PUT", "/api/pins/ghcr.io/a/b", None, 404),
        ("PUT", "/api/pins/A", None, 400),
        ("DELETE", "/api/pins/alpine", None, 404),
        ("POST", "/api/repositories", b"{}", 405),
        ("GET", "/api/nothing", None, 404),
        ("GET", "/api/images/", None, 404),
        ("GET", "/api/images/A", None, 400),
        ("GET", "/api/images/..%2f..%2fetc", None, 400),
        ("GET", "/api/images/%ff", None, 400),
        ("GET", "/api/images/alpine%00", None, 400),
        ("GET", "/api/repositories?limit=0", None, 400),
        ("GET", "/api/repositories?limit=1001", None, 400),
        ("GET", "/api/repositories?limit=x", None, 400),
        ("GET", f"/api/repositories?limit={'9' * 5000}", None, 400),
        ("GET", f"/api/repositories?match={'x' * 2000}", None, 400),
        ("GET", "/api/repositories?match=%ed%a0%80", None, 200),
        ("GET", "/api/repositories?after=%00", None, 200),
        ("GET", "/api/vanished?after=%ff&match=%5b", None, 200),
        ("GET", "/api/history/alpine?after=soon", None, 400),
        ("GET", "/api/history/alpine?after=nan", None, 200),
    ],
)
async def test_what_cannot_be_is_said_to_whoever_asks(
    cache: CacheRig, method: str, path: str, data: bytes | None, expected: int
) -> None:
    status, document = await ask(cache, method, path, data=data)
    assert (status, "error" in document) == (expected, expected != 200), document


async def test_only_the_keeper_of_the_folder_evicts_and_scrubs(hub: FakeHub, cache: CacheRig) -> None:
    async with CacheRig(hub.url, cache.directory) as second:
        for method, path in (("POST", "/api/gc"), ("POST", "/api/scrub"), ("DELETE", "/api/scrub")):
            status, document = await ask(second, method, path, {})
            assert (status, "ask that one" in document["error"]) == (409, True)
        assert (await told(second, "/api/scrub"))["keeper"] is False
        assert (await ask(second, "POST", "/api/gc", {"dry_run": True}))[0] == 200


async def test_a_database_that_cannot_be_read_is_said_to_be(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "3.20")
    (cache.directory / "index.sqlite").rename(cache.directory / "elsewhere")
    try:
        status, document = await ask(cache, "GET", "/api/repositories")
    finally:
        (cache.directory / "elsewhere").rename(cache.directory / "index.sqlite")
    assert (status, "cannot be looked at" in document["error"]) == (503, True)


async def test_a_manifest_that_went_bad_on_disk_is_not_believed(hub: FakeHub, cache: CacheRig) -> None:
    image = await pulled(hub, cache, ALPINE, "3.20")
    other = await pulled(hub, cache, OTHER, "v1")
    cache.app.store.blobs.path(Digest.parse(image.digest)).write_bytes(other.body)
    assert (await told(cache, "/api/images/alpine:3.20"))["image"]["parts"] == []
    await ask(cache, "POST", "/api/purge", {"image": "alpine:3.20"})
    assert on_disk(other) <= cache.blobs_on_disk()
