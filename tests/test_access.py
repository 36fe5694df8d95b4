"""Who may be given what: public repositories everybody, private ones nobody unless the operator says so (promise 2)."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest

from proxy.config import AccessOptions
from proxy.policy.access import PRIVATE_SECONDS, Admission, Visibility, decide, decide_unasked
from proxy.policy.breaker import MAX_SECONDS
from proxy.policy.freshness import REVALIDATION_PATIENCE_SECONDS
from tests.asked import gets, visibility_questions
from tests.cache_rig import CacheRig, Reply, gather
from tests.eventually import eventually
from tests.fake_hub import FakeHub, Image, at

NOW = 1_800_000_000.0
HOURS = 3600.0
REMEMBER = 6 * HOURS
PUBLIC = "acme/app"
SECRET = "acme/secret"


@pytest.fixture
async def serving(hub: FakeHub, tmp_path: Path) -> AsyncIterator[CacheRig]:
    """A cache whose operator serves private repositories."""
    async with CacheRig(hub.url, tmp_path / "serving", private="serve") as running:
        yield running


@pytest.fixture
def secret(hub: FakeHub) -> Image:
    image = hub.add_image(SECRET, "latest", [b"secret layer"])
    hub.make_private(SECRET)
    return image


def error(reply: Reply) -> dict[str, str]:
    document: dict[str, str] = json.loads(reply.body)["errors"][0]
    return document


async def everything(cache: CacheRig, image: Image, repository: str | None = None) -> list[Reply]:
    """Every way to ask for an image, HEADs last."""
    name = repository or image.repository
    return [
        await cache.get_manifest(name, image.tag),
        await cache.get_manifest(name, image.digest),
        await cache.get_blob(name, image.config),
        await cache.get_blob(name, image.layers[0]),
        await cache.head_manifest(name, image.tag),
        await cache.head_manifest(name, image.digest),
        await cache.head_blob(name, image.layers[0]),
    ]


@pytest.mark.parametrize(
    ("private", "known", "admission"),
    [
        ("serve", None, Admission.SERVE),
        ("serve", Visibility(False, NOW), Admission.SERVE),
        ("deny", None, Admission.ASK),
        ("deny", Visibility(True, NOW), Admission.SERVE),
        ("deny", Visibility(True, NOW - REMEMBER + 1), Admission.SERVE),
        ("deny", Visibility(True, NOW - REMEMBER), Admission.ASK),
        ("deny", Visibility(True, NOW + 1), Admission.ASK),
        ("deny", Visibility(False, NOW), Admission.DENY),
        ("deny", Visibility(False, NOW - PRIVATE_SECONDS + 1), Admission.DENY),
        ("deny", Visibility(False, NOW - PRIVATE_SECONDS), Admission.ASK),
        ("deny", Visibility(False, NOW + 1), Admission.ASK),
    ],
)
def test_what_is_known_of_a_repository_decides_while_it_is_remembered(
    private: Literal["deny", "serve"], known: Visibility | None, admission: Admission
) -> None:
    assert decide(private, known, NOW, REMEMBER) is admission


def test_private_is_remembered_no_longer_than_the_operator_says() -> None:
    assert decide("deny", Visibility(False, NOW - 60), NOW, 60.0) is Admission.ASK


def test_what_was_last_known_stands_when_upstream_cannot_be_asked() -> None:
    assert decide_unasked(None) is Admission.ASK
    assert decide_unasked(Visibility(True, 0)) is Admission.SERVE
    assert decide_unasked(Visibility(False, 0)) is Admission.DENY


async def test_a_private_repository_is_denied_with_the_name_of_the_setting(
    cache: CacheRig, hub: FakeHub, secret: Image
) -> None:
    replies = await everything(cache, secret)

    assert {reply.status for reply in replies} == {403}
    assert {error(reply)["code"] for reply in replies[:4]} == {"DENIED"}
    assert all("access.private" in error(reply)["message"] for reply in replies[:4])
    assert not [reply for reply in replies if "WWW-Authenticate" in reply.headers]
    assert (hub.counted_pulls, hub.blob_bytes_sent) == (0, 0)
    assert cache.blobs_on_disk() == set()
    assert not hub.token_count(hub.username)


async def test_a_private_repository_is_served_if_the_operator_says_so(
    serving: CacheRig, hub: FakeHub, secret: Image
) -> None:
    replies = await everything(serving, secret)

    assert {reply.status for reply in replies} == {200}
    assert replies[0].body == replies[1].body == secret.body
    assert visibility_questions(hub) == 0


async def test_what_does_not_exist_is_denied_like_what_is_private(cache: CacheRig, hub: FakeHub) -> None:
    reply = await cache.get_manifest("acme/nothing", "latest")

    assert (reply.status, error(reply)["code"]) == (403, "DENIED")
    assert hub.counted_pulls == 0


async def test_what_was_cached_while_private_was_served_is_denied_afterwards(
    hub: FakeHub, tmp_path: Path, secret: Image
) -> None:
    async with CacheRig(hub.url, tmp_path / "cache", private="serve") as cache:
        await everything(cache, secret)
    async with CacheRig(hub.url, tmp_path / "cache") as cache:
        replies = await everything(cache, secret)
        await hub.gone()
        without_upstream = await everything(cache, secret)

    assert {reply.status for reply in (*replies, *without_upstream)} == {403}


async def test_what_a_private_repository_holds_is_not_given_under_another_name(
    serving: CacheRig, hub: FakeHub, secret: Image
) -> None:
    hub.add_image(PUBLIC, "latest")
    await everything(serving, secret)

    replies = [
        await serving.get_manifest(PUBLIC, secret.digest),
        await serving.get_blob(PUBLIC, secret.layers[0]),
        await serving.get_blob(PUBLIC, secret.config),
        await serving.head_manifest(PUBLIC, secret.digest),
        await serving.head_blob(PUBLIC, secret.layers[0]),
    ]

    assert {reply.status for reply in replies} == {404}


async def test_what_a_public_repository_shares_with_a_private_one_is_served_there_alone(
    cache: CacheRig, hub: FakeHub, secret: Image
) -> None:
    copy = hub.add_image(PUBLIC, "latest", [b"secret layer"])
    assert copy.digest == secret.digest

    served = await everything(cache, copy)
    denied = await everything(cache, secret)

    assert {reply.status for reply in served} == {200}
    assert {reply.status for reply in denied} == {403}


async def test_whether_a_repository_is_public_is_asked_once_for_free_and_outlives_a_restart(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image(PUBLIC, "latest")

    await gather(*(cache.get_manifest(PUBLIC, "latest") for _ in range(20)))
    await everything(cache, image)
    await cache.restart()
    cache.clock.advance(REMEMBER - 1)
    await everything(cache, image)

    assert visibility_questions(hub) == 1
    assert hub.counted_pulls == 1
    cache.clock.advance(1)
    await cache.get_manifest(PUBLIC, "latest")
    assert visibility_questions(hub) == 2


async def test_a_repository_that_became_private_is_denied_after_what_is_remembered(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image(PUBLIC, "latest")
    await everything(cache, image)
    hub.make_private(PUBLIC)
    hub.expire_tokens()

    before = await everything(cache, image)
    cache.clock.advance(REMEMBER)
    after = await everything(cache, image)

    assert {reply.status for reply in before} == {200}
    assert {reply.status for reply in after} == {403}
    assert image.digest in cache.blobs_on_disk()


async def test_a_repository_that_was_opened_up_is_served_within_minutes(
    cache: CacheRig, hub: FakeHub, secret: Image
) -> None:
    await cache.get_manifest(SECRET, "latest")
    hub.make_public(SECRET)

    denied = await cache.get_manifest(SECRET, "latest")
    asked = visibility_questions(hub)
    cache.clock.advance(PRIVATE_SECONDS)
    hub.expire_tokens()
    served = await cache.get_manifest(SECRET, "latest")

    assert (denied.status, served.status, asked) == (403, 200, 0)


async def test_a_repository_of_unknown_visibility_is_not_served_while_upstream_is_gone(
    hub: FakeHub, tmp_path: Path
) -> None:
    image = hub.add_image(PUBLIC, "latest")
    async with CacheRig(hub.url, tmp_path / "cache", private="serve") as cache:
        await everything(cache, image)
    await hub.gone()

    async with CacheRig(hub.url, tmp_path / "cache") as cache:
        unknown = await everything(cache, image)
        await hub.back()
        cache.clock.advance(MAX_SECONDS)  # By then it is asked again.
        known = await everything(cache, image)

    assert {reply.status for reply in unknown} == {503}
    assert {error(reply)["code"] for reply in unknown[:4]} == {"UNAVAILABLE"}
    assert {reply.status for reply in known} == {200}


async def test_a_public_repository_is_served_when_upstream_cannot_be_asked_again(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(PUBLIC, "latest")
    await everything(cache, image)
    cache.clock.advance(REMEMBER)
    await hub.gone()

    replies = await everything(cache, image)

    assert {reply.status for reply in replies} == {200}


@pytest.mark.parametrize("limit", ["abuse", "status"])
async def test_a_public_repository_is_served_when_the_question_is_refused_for_now(
    cache: CacheRig, hub: FakeHub, limit: str
) -> None:
    image = hub.add_image(PUBLIC, "latest")
    await everything(cache, image)
    cache.clock.advance(REMEMBER)
    if limit == "abuse":
        hub.abuse_limit()
    else:
        hub.fail("registry", 503)

    assert {reply.status for reply in await everything(cache, image)} == {200}


async def test_a_slow_answer_delays_a_client_of_a_public_repository_by_seconds_only(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image(PUBLIC, "latest")
    await everything(cache, image)
    cache.clock.advance(REMEMBER)
    hub.hang("any")
    started = time.monotonic()

    reply = await cache.get_blob(PUBLIC, image.layers[0])
    waited = time.monotonic() - started
    hub.heal()

    assert (reply.status, reply.body) == (200, f"layer of {PUBLIC}:latest for linux/amd64".encode())
    assert waited < REVALIDATION_PATIENCE_SECONDS + 1


async def test_the_anonymous_question_never_carries_the_account(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(PUBLIC, "latest")
    hub.hang(at("manifest", method="GET"))

    await cache.head_manifest(PUBLIC, "latest")

    first = next(each for each in hub.requests if each.kind == "token")
    assert "Authorization" not in first.headers
    assert hub.violations == []


async def test_without_an_account_what_is_public_is_served(hub: FakeHub, tmp_path: Path, secret: Image) -> None:
    image = hub.add_image(PUBLIC, "latest")
    async with CacheRig(hub.url, tmp_path / "cache", username=None) as cache:
        served = await cache.get_manifest(PUBLIC, "latest")
        denied = await cache.get_manifest(SECRET, "latest")

    assert (served.status, served.body) == (200, image.body)
    assert (denied.status, error(denied)["code"]) == (403, "DENIED")
    assert "does not exist or is private" in error(denied)["message"]


async def test_how_long_it_is_remembered_is_a_setting(hub: FakeHub, tmp_path: Path) -> None:
    hub.add_image(PUBLIC, "latest")
    options = {"access": AccessOptions(private="deny", remember=60.0)}
    async with CacheRig(hub.url, tmp_path / "cache", options=options) as cache:
        await cache.head_manifest(PUBLIC, "latest")
        cache.clock.advance(60)
        await cache.head_manifest(PUBLIC, "latest")

    assert visibility_questions(hub) == 2


async def test_a_clock_that_was_set_back_has_it_asked_again(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(PUBLIC, "latest")
    await cache.get_manifest(PUBLIC, "latest")
    hub.make_private(PUBLIC)
    hub.expire_tokens()
    cache.clock.advance(-24 * HOURS)

    reply = await cache.get_manifest(PUBLIC, "latest")

    assert reply.status == 403


async def test_a_missing_tag_of_a_public_repository_is_missing_and_not_denied(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(PUBLIC, "latest")

    reply = await cache.get_manifest(PUBLIC, "missing")

    assert (reply.status, error(reply)["code"]) == (404, "MANIFEST_UNKNOWN")
    assert gets(hub) == 0
    await eventually(lambda: visibility_questions(hub) == 1)
