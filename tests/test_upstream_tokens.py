"""Challenges and tokens over real sockets (PROTOCOL 2.1-2.3)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from urllib.parse import parse_qs

import pytest
from multidict import CIMultiDict

from proxy.oci.errors import Denied, TooManyRequests, Unavailable
from proxy.oci.names import Digest, Repository
from proxy.policy.quota import Gate
from proxy.upstream.tokens import lifetime
from tests.fake_hub import ANONYMOUS, Answer, FakeHub, Recorded, at
from tests.upstream_rig import LATEST, REPOSITORY, asking, asking_as_account

OTHER = Repository.parse("acme/other")


async def test_the_first_challenge_is_learned_and_later_repositories_are_asked_with_a_token_at_once() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.add_image(OTHER.name, "latest")

        await upstream.head_manifest(REPOSITORY, LATEST)
        await upstream.head_manifest(OTHER, LATEST)

        assert hub.count("HEAD", "manifest", status=401) == 1
        assert hub.count("HEAD", "manifest", status=200) == 2
        assert hub.token_count(ANONYMOUS) == 2


async def test_a_token_is_asked_for_with_service_and_scope() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)

        (exchange,) = (request for request in hub.requests if request.listener == "token")
        assert parse_qs(exchange.query) == {"service": [hub.service], "scope": ["repository:acme/app:pull"]}
        assert exchange.identity == hub.username


async def test_a_token_is_kept_until_thirty_seconds_before_its_end() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")

        await upstream.head_manifest(REPOSITORY, LATEST)
        upstream.clock.turn(269)
        await upstream.head_manifest(REPOSITORY, LATEST)
        assert hub.token_count() == 1

        upstream.clock.turn(2)
        await upstream.head_manifest(REPOSITORY, LATEST)
        assert hub.token_count() == 2
        assert hub.count("HEAD", "manifest", status=401) == 1


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (300, 270),
        (60, 30),
        (40, 20),
        (10, 5),
        (90.5, 60.5),
        (None, 30),
        (0, 30),
        (-5, 30),
        ("300", 30),
        (float("inf"), 30),
        (float("nan"), 30),
        (10**9, 24 * 3600 - 30),
        (10**400, 24 * 3600 - 30),
    ],
)
def test_lifetime_is_expires_in_less_a_margin(expires_in: object, seconds: float) -> None:
    assert lifetime(expires_in) == seconds


async def test_concurrent_requests_share_one_exchange_for_each_repository() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.add_image(OTHER.name, "latest")
        await upstream.head_manifest(Repository.parse("acme/app"), LATEST)  # teaches the challenge
        upstream.clock.turn(300)
        hub.reset_counts()
        hub.hang("token")

        async with asyncio.TaskGroup() as clients:
            for _ in range(20):
                clients.create_task(upstream.head_manifest(REPOSITORY, LATEST))
                clients.create_task(upstream.head_manifest(OTHER, LATEST))
            await hub.wait_held("token", count=2)
            hub.release("token")

        assert hub.token_count() == 2
        assert hub.count("HEAD", "manifest", status=200) == 40


async def test_an_exchange_outlives_the_request_that_started_it() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.hang("token")
        leaving = asyncio.create_task(upstream.head_manifest(REPOSITORY, LATEST))
        await hub.wait_held("token")
        leaving.cancel()
        await asyncio.wait([leaving])
        hub.release("token")

        await upstream.head_manifest(REPOSITORY, LATEST)
        assert hub.token_count() == 1


async def test_a_401_is_answered_once_with_a_fresh_token_of_its_scope() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        hub.expire_tokens()
        hub.reset_counts()

        await upstream.head_manifest(REPOSITORY, LATEST)

        assert hub.count("HEAD", "manifest", status=401) == 1
        assert hub.count("HEAD", "manifest", status=200) == 1
        assert hub.token_count() == 1


async def test_the_scope_of_the_challenge_is_the_one_that_is_asked_for() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.change(
            at("manifest"),
            lambda answer: answer.headers.update(
                {
                    "www-authenticate": f'Bearer realm="{hub.realm}",service="s",scope="repository:acme/app:pull,push"',
                }
            ),
            times=1,
        )
        await upstream.head_manifest(REPOSITORY, LATEST)

        (exchange,) = (request for request in hub.requests if request.listener == "token")
        assert parse_qs(exchange.query) == {"service": ["s"], "scope": ["repository:acme/app:pull,push"]}


async def test_a_401_that_stands_is_denied_and_not_repeated() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        hub.make_private(REPOSITORY.name)
        hub.expire_tokens()
        hub.reset_counts()

        with pytest.raises(Denied, match=r"docker\.io denies"):
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert hub.count("HEAD", "manifest", status=401) == 2
        assert hub.token_count() == 1


async def test_many_requests_with_a_dead_token_need_one_exchange() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        hub.expire_tokens()
        hub.reset_counts()
        hub.hang("manifest", times=20)

        async with asyncio.TaskGroup() as clients:
            for _ in range(20):
                clients.create_task(upstream.head_manifest(REPOSITORY, LATEST))
            await hub.wait_held("manifest", count=20)
            hub.release("manifest")

        assert hub.token_count() == 1


@pytest.mark.parametrize(("scope", "exchanges"), [("repository:acme/app:pull", 2), ("repository:acme/app:pull,x", 3)])
async def test_a_newer_token_is_kept_and_used_if_it_is_of_the_scope_that_is_wanted(scope: str, exchanges: int) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        hub.expire_tokens()
        challenge = {"www-authenticate": f'Bearer realm="{hub.realm}",service="s",scope="{scope}"'}
        hub.change("manifest", lambda answer: answer.headers.update(challenge), times=1)
        hub.hang("manifest", times=1)
        refused = asyncio.create_task(upstream.head_manifest(REPOSITORY, LATEST))
        await hub.wait_held("manifest")
        upstream.clock.turn(300)
        await upstream.head_manifest(REPOSITORY, LATEST)

        hub.release()
        await refused
        assert hub.token_count() == exchanges


async def test_closing_ends_the_exchanges_that_run() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.hang("token")
        asked = [asyncio.create_task(upstream.head_manifest(each, LATEST)) for each in (REPOSITORY, OTHER)]
        await hub.wait_held("token")
        await upstream.aclose()

        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("collapsed")] == []
        await asyncio.wait(asked)
        assert all(task.cancelled() for task in asked)


@pytest.mark.parametrize("challenge", [None, "", "Negotiate", "Bearer service=s", "garbage, =="])
async def test_a_401_that_asks_for_nothing_we_have_is_denied(challenge: str | None) -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        rule = hub.fail("manifest", 401)
        if challenge is not None:
            hub.change("manifest", lambda answer: answer.headers.update({"www-authenticate": challenge}))

        with pytest.raises(Denied):
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert rule.used == 1
        assert hub.token_count() == 0


async def test_a_realm_of_somebody_else_gets_nothing() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.realm = hub.stranger_url + "/token"

        with pytest.raises(Unavailable, match=r"127\.0\.0\.2"):
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert [request for request in hub.requests if request.listener == "stranger"] == []


async def test_the_token_server_cannot_send_credentials_elsewhere() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.redirect_to("token", hub.stranger_url + "/token")

        with pytest.raises(Unavailable, match="another host"):
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert [request for request in hub.requests if request.listener == "stranger"] == []


async def test_access_token_is_as_good_as_token_and_lasts_a_minute_where_nothing_is_said() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.garbage("token", json.dumps({"access_token": "opaque"}).encode())
        hub.replace("manifest", only_with("Bearer opaque", f'Bearer realm="{hub.realm}"'))

        for seconds in (0, 29, 2):
            upstream.clock.turn(seconds)
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert hub.token_count() == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"not json",
        b'{"token": ""}',
        b'{"token": 7}',
        b'{"token": "a\\r\\nX-Evil: 1"}',
        b"[" * 100_000,
    ],
)
async def test_an_answer_without_a_usable_token_is_unavailable(body: bytes) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.garbage("token", body)

        with pytest.raises(Unavailable, match="without a token"):
            await upstream.head_manifest(REPOSITORY, LATEST)


async def test_an_endless_token_is_not_read() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.garbage("token", json.dumps({"token": "a" * 2_000_000}).encode())
        hub.no_content_length("token")

        with pytest.raises(Unavailable, match="without a token"):
            await upstream.head_manifest(REPOSITORY, LATEST)


@pytest.mark.parametrize(("status", "error"), [(401, Denied), (403, Denied), (404, Unavailable), (503, Unavailable)])
async def test_an_anonymous_exchange_that_fails(status: int, error: type[Exception]) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.fail("token", status)

        with pytest.raises(error):
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert upstream.limits.closed_for(Gate.REQUESTS, upstream.clock.now) is None


async def test_an_anonymous_429_of_the_token_server_closes_everything() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.fail("token", 429, retry_after=40)

        with pytest.raises(TooManyRequests) as refused:
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert 40 <= (refused.value.retry_after or 0) <= 50
        assert upstream.limits.closed_for(Gate.REQUESTS, upstream.clock.now) == refused.value.retry_after


async def test_tokens_are_not_kept_without_bound() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.replace("manifest", only_with("Bearer opaque", f'Bearer realm="{hub.realm}"'))
        hub.garbage("token", b'{"token": "opaque"}')
        for number in range(1001):
            await upstream.head_manifest(Repository.parse(f"acme/r{number}"), LATEST)
        hub.reset_counts()

        await upstream.head_manifest(Repository.parse("acme/r1000"), LATEST)
        assert hub.token_count() == 0
        await upstream.head_manifest(Repository.parse("acme/r0"), LATEST)
        assert hub.token_count() == 1


def only_with(authorization: str, challenge: str) -> Callable[[Recorded], Answer]:
    """Answers of a registry that takes this Authorization and challenges every other."""

    def make(request: Recorded) -> Answer:
        if request.headers.get("Authorization") == authorization:
            return Answer(200, CIMultiDict({"docker-content-digest": str(Digest.of(b""))}))
        return Answer(401, CIMultiDict({"www-authenticate": challenge}))

    return make
