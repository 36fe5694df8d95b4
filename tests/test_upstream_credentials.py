"""The user name and password, and the breaker that keeps a wrong one from locking the account (PROTOCOL 1.4, 2.2)."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from multidict import CIMultiDict

from proxy.oci.errors import Denied
from proxy.oci.names import Digest, Repository
from proxy.upstream.credentials import BREAKER_SECONDS
from tests.fake_hub import ANONYMOUS, Answer, FakeHub, Recorded
from tests.upstream_rig import LATEST, PAT, REPOSITORY, asking, asking_as_account, started


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_the_account_is_asked_for_even_where_anonymous_would_do() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.get_manifest(REPOSITORY, LATEST)

        assert upstream.has_credentials
        assert upstream.credentials_state() == "ok"
        assert upstream.sample("credentials_rejected") == 0
        assert hub.counted_pulls_of(hub.username) == 1


async def test_without_credentials_there_is_no_state_and_no_metric() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        assert not upstream.has_credentials
        assert upstream.credentials_state() == "none"
        assert upstream.sample("credentials_rejected") is None


async def test_a_wrong_password_is_sent_once_said_once_and_replaced_by_anonymous(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeHub() as hub, asking_as_account(hub, "wrong") as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.add_image("acme/other", "latest")

        await upstream.get_manifest(REPOSITORY, LATEST)
        await upstream.get_manifest(Repository.parse("acme/other"), LATEST)

        assert hub.token_count(hub.username) == 1
        assert hub.counted_pulls_of(ANONYMOUS) == 2
        assert upstream.credentials_state() == "rejected"
        assert upstream.sample("credentials_rejected") == 1
        (line,) = errors(caplog)
        assert "docker.io" in line and "check username and password_file" in line


async def test_many_first_requests_at_once_send_a_wrong_password_once() -> None:
    async with FakeHub() as hub, asking_as_account(hub, "wrong") as upstream:
        repositories = [Repository.parse(f"acme/r{number}") for number in range(20)]
        for repository in repositories:
            hub.add_image(repository.name, "latest")

        await asyncio.gather(*(upstream.head_manifest(repository, LATEST) for repository in repositories))

        assert hub.token_count(hub.username) == 1
        assert hub.count("HEAD", "manifest", status=200) == 20


async def test_exchanges_of_proven_credentials_do_not_wait_for_each_other() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        for name in ("acme/app", "acme/a", "acme/b"):
            hub.add_image(name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        hub.hang("token")

        async with asyncio.TaskGroup() as clients:
            for name in ("acme/a", "acme/b"):
                clients.create_task(upstream.head_manifest(Repository.parse(name), LATEST))
            await hub.wait_held("token", count=2)
            hub.release("token")


async def test_what_only_the_account_may_pull_is_denied_meanwhile_and_says_why() -> None:
    async with FakeHub() as hub, asking_as_account(hub, "wrong") as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.make_private(REPOSITORY.name)

        with pytest.raises(Denied, match="the credentials are rejected"):
            await upstream.head_manifest(REPOSITORY, LATEST)


async def test_a_rejected_password_is_tried_again_after_fifteen_minutes(caplog: pytest.LogCaptureFixture) -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.pat = "another"
        await upstream.head_manifest(REPOSITORY, LATEST)
        hub.pat = PAT

        upstream.clock.turn(BREAKER_SECONDS - 1)
        await upstream.head_manifest(REPOSITORY, LATEST)
        assert upstream.credentials_state() == "rejected"

        upstream.clock.turn(2)
        await upstream.head_manifest(REPOSITORY, LATEST)
        assert upstream.credentials_state() == "ok"
        assert upstream.sample("credentials_rejected") == 0
        assert len(errors(caplog)) == 1


async def test_every_trip_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async with FakeHub() as hub, asking_as_account(hub, "wrong") as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        for _ in range(2):
            await upstream.head_manifest(REPOSITORY, LATEST)
            upstream.clock.turn(BREAKER_SECONDS + 1)

        assert len(errors(caplog)) == 2


async def test_a_changed_password_file_closes_the_breaker_at_once(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wrong\n")
    async with FakeHub() as hub, started(hub.url, username=hub.username, password_file=file) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        await upstream.head_manifest(REPOSITORY, LATEST)
        assert hub.token_count(hub.username) == 1

        file.write_text(f"  {PAT}\n")
        await upstream.head_manifest(REPOSITORY, LATEST)

        assert hub.token_count(hub.username) == 2
        assert upstream.credentials_state() == "ok"


async def test_a_password_file_that_cannot_be_read_means_anonymous_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "password"
    async with FakeHub() as hub, started(hub.url, username=hub.username, password_file=file) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        for content in (None, b"", b" \n", b"\xff\xfe\xfd"):
            if content is not None:
                file.write_bytes(content)
            await upstream.head_manifest(REPOSITORY, LATEST)

        assert hub.token_count(hub.username) == 0
        assert upstream.credentials_state() == "rejected"
        (line,) = errors(caplog)
        assert str(file) in line

        file.write_text(PAT)
        await upstream.head_manifest(REPOSITORY, LATEST)
        assert upstream.credentials_state() == "ok"


async def test_locked_logins_trip_the_breaker_too(caplog: pytest.LogCaptureFixture) -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.login_attempts = 0

        await upstream.head_manifest(REPOSITORY, LATEST)
        upstream.clock.turn(300)
        await upstream.head_manifest(REPOSITORY, LATEST)

        assert hub.token_count(hub.username) == 1
        assert hub.token_count(ANONYMOUS) == 2
        assert upstream.credentials_state() == "rejected"
        (line,) = errors(caplog)
        assert "429" in line


async def test_a_token_that_lasts_is_used_while_the_breaker_is_open() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.add_image("acme/other", "latest")
        await upstream.get_manifest(REPOSITORY, LATEST)
        hub.pat = "another"
        await upstream.head_manifest(Repository.parse("acme/other"), LATEST)
        assert upstream.credentials_state() == "rejected"

        await upstream.get_manifest(REPOSITORY, LATEST)
        assert hub.counted_pulls_of(hub.username) == 2


class BasicRegistry:
    """A registry that wants the password itself; `forbidden` answers 401 to good passwords too."""

    def __init__(self, hub: FakeHub, basic: str, forbidden: str = "") -> None:
        self._basic = basic
        self._forbidden = forbidden
        self.passwords: list[str] = []
        hub.replace("registry", self._answer)

    def _answer(self, request: Recorded) -> Answer:
        sent = request.headers.get("Authorization")
        if sent is not None:
            self.passwords.append(sent)
        if sent != self._basic or (self._forbidden and request.repository == self._forbidden):
            return Answer(401, CIMultiDict({"www-authenticate": 'Basic realm="a registry"'}))
        return Answer(200, CIMultiDict({"docker-content-digest": str(Digest.of(b""))}))


BASIC_PAT = "Basic YWxpY2U6ZGNrcl9wYXRfdGVzdA=="


async def test_a_registry_that_wants_basic_gets_the_password_at_once_after_the_first_challenge() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        registry = BasicRegistry(hub, BASIC_PAT)
        for _ in range(3):
            await upstream.head_manifest(REPOSITORY, LATEST)

        assert hub.count("HEAD", "manifest", status=401) == 1
        assert registry.passwords == [BASIC_PAT] * 3
        assert upstream.credentials_state() == "ok"


async def test_basic_without_credentials_is_denied() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        registry = BasicRegistry(hub, BASIC_PAT)

        with pytest.raises(Denied):
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert registry.passwords == []


async def test_a_wrong_basic_password_trips_the_breaker() -> None:
    async with FakeHub() as hub, asking_as_account(hub, "wrong") as upstream:
        registry = BasicRegistry(hub, BASIC_PAT)
        for _ in range(3):
            with pytest.raises(Denied):
                await upstream.head_manifest(REPOSITORY, LATEST)

        assert len(registry.passwords) == 2  # the request, and the question whether it is the password's fault
        assert upstream.credentials_state() == "rejected"


async def test_a_registry_that_takes_basic_again_closes_the_breaker(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wrong")
    async with FakeHub() as hub, started(hub.url, username=hub.username, password_file=file) as upstream:
        BasicRegistry(hub, BASIC_PAT)
        with pytest.raises(Denied):
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert upstream.credentials_state() == "rejected"

        file.write_text(PAT)
        await upstream.head_manifest(REPOSITORY, LATEST)
        assert upstream.credentials_state() == "ok"


async def test_basic_is_not_sent_when_the_question_is_an_anonymous_one() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        registry = BasicRegistry(hub, BASIC_PAT)
        await upstream.head_manifest(REPOSITORY, LATEST)

        assert not await upstream.is_public(REPOSITORY, LATEST)
        assert registry.passwords == [BASIC_PAT]


async def test_a_token_is_preferred_to_the_password_where_both_would_do() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        both = f'Basic realm="r", Bearer realm="{hub.realm}",service="s", Basic realm="r"'
        hub.change("manifest", lambda answer: answer.headers.update({"www-authenticate": both}))

        await upstream.head_manifest(REPOSITORY, LATEST)
        assert hub.token_count(hub.username) == 1
        assert hub.violations == []


async def test_one_forbidden_repository_does_not_trip_the_breaker_of_a_basic_registry() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        registry = BasicRegistry(hub, BASIC_PAT, forbidden=REPOSITORY.name)

        for _ in range(2):
            with pytest.raises(Denied):
                await upstream.head_manifest(REPOSITORY, LATEST)
        assert upstream.credentials_state() == "ok"
        assert (
            len(registry.passwords) == 4
        )  # each time the request, and the question whether it is the password's fault
        await upstream.head_manifest(Repository.parse("acme/other"), LATEST)


async def test_the_password_never_goes_to_a_redirects_target() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        registry = BasicRegistry(hub, BASIC_PAT)
        await upstream.head_manifest(REPOSITORY, LATEST)
        hub.heal()
        hub.redirect_to("registry", hub.stranger_url + "/here")

        with pytest.raises(Exception, match="tell digests"):
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert hub.violations == []
        assert registry.passwords == [BASIC_PAT]
