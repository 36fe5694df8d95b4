"""`doctor` against set-ups that are well and set-ups that are not: what is wrong is named, with its cure."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from proxy.config import Address, AdminOptions, CacheOptions, Secret, ServerOptions
from proxy.doctor.findings import Check, State, ok
from proxy.doctor.judge.account import PROBE
from tests.doctor_rig import Findings, SetUp, case_of, findings, healthy, short, wrong
from tests.fake_hub import ANONYMOUS, FakeHub
from tests.fake_hub.answers import Answer, json_answer
from tests.ports import free_port

__all__ = ["healthy", "short"]  # Fixtures: used by their names.

EXPIRED = json_answer(401, {"details": "personal access token is expired"})


def set_date(hub: FakeHub, offset: float) -> None:
    """Let the hub's clock be off by this many seconds."""
    hub.change("any", lambda answer: answer.headers.update({"date": formatdate(time.time() + offset, usegmt=True)}))


# The healthy set-up


async def test_a_healthy_set_up_has_a_tick_at_every_step_that_applies(healthy: SetUp) -> None:
    found = await healthy.examine()

    assert wrong(found) == {}
    left_out = {name for name, finding in found.items() if finding.state is State.SKIPPED}
    assert left_out == {"docker.io TLS", "containerd", "podman"}
    assert found["docker.io login"].text == "logged in as alice"
    assert "100 pulls left of 100 in 6h, counted for the account" in found["docker.io quota"].text
    assert found["canary pull"].text.endswith("manifest and blob; cost 1 counted pull")


async def test_credentials_go_to_the_realm_alone(healthy: SetUp) -> None:
    await findings(replace(healthy.case(), canary=None))
    assert healthy.hub.violations == []
    assert {each.listener for each in healthy.hub.requests if "Authorization" in each.headers} == {"token", "registry"}
    assert healthy.hub.token_count("alice") == 1


async def test_without_an_account_the_limit_is_that_of_the_address(healthy: SetUp) -> None:
    found = await healthy.examine(upstreams=healthy.upstream(username=None, password=None))
    assert wrong(found) == {}
    assert found["docker.io login"].text.startswith("anonymously; DOCKERHUB_USERNAME")
    assert found["docker.io quota"].text.endswith("counted for the address 127.0.0.1")
    assert healthy.hub.token_count("alice") == 1  # The cache's own, for the canary.


async def test_an_account_without_a_limit_is_not_one_with_nothing_left(healthy: SetUp) -> None:
    healthy.hub.rate_limit = None
    found = await healthy.examine()
    assert found["docker.io quota"].text == "no limit headers: unlimited or sponsored, counted for the account"


# The account


async def test_a_wrong_token_is_named(healthy: SetUp) -> None:
    found = await healthy.examine(upstreams=healthy.upstream(password=Secret("dckr_pat_wrong")))
    assert wrong(found) == {"docker.io login": "the username alice or its access token is wrong"}
    assert "app.docker.com/settings/personal-access-tokens" in (found["docker.io login"].cure or "")
    assert found["docker.io quota"].state is State.SKIPPED


async def test_a_wrong_token_is_tried_once_so_as_not_to_lock_the_account(healthy: SetUp) -> None:
    await findings(replace(healthy.case(upstreams=healthy.upstream(password=Secret("wrong"))), canary=None))
    assert healthy.hub.token_count("alice") == 1


async def test_an_expired_token_is_named(healthy: SetUp) -> None:
    healthy.hub.replace("token", lambda _: EXPIRED, times=1)
    found = await healthy.examine()
    assert wrong(found) == {"docker.io login": "the access token of alice has expired"}
    assert "make one with Public Repo Read-only" in (found["docker.io login"].cure or "")


async def test_locked_logins_are_named(healthy: SetUp) -> None:
    healthy.hub.login_attempts = 0
    found = await findings(replace(healthy.case(), canary=None))
    assert "locked after too many failed ones" in found["docker.io login"].text
    assert "Wait 15 minutes" in (found["docker.io login"].cure or "")


async def test_a_used_up_quota_is_named(healthy: SetUp) -> None:
    healthy.hub.set_remaining(0)
    found = await healthy.examine()
    assert "no pulls left of 100 in 6h" in wrong(found)["docker.io quota"]
    assert "429" in wrong(found)["canary pull"]


async def test_a_foreign_realm_gets_no_credentials(healthy: SetUp) -> None:
    healthy.hub.realm = healthy.hub.stranger_url + "/token"
    found = await findings(replace(healthy.case(), canary=None))
    assert "not trusted" in wrong(found)["docker.io challenge"]
    assert not [each for each in healthy.hub.requests if each.listener == "stranger"]


async def test_what_a_server_echoes_is_not_repeated(healthy: SetUp) -> None:
    def echo(_: Any) -> Answer:
        return json_answer(401, {"details": f"no such token: {healthy.hub.pat}"})

    healthy.hub.replace("token", echo)
    found = await healthy.examine()
    assert wrong(found)
    assert healthy.hub.pat not in str(found)


# The upstream


async def test_an_upstream_that_is_down_is_named(healthy: SetUp) -> None:
    await healthy.hub.gone()
    found = await healthy.examine()
    assert "refuses connections: the upstream is down" in wrong(found)["docker.io TCP"]
    assert found["docker.io TCP"].cure
    assert found["docker.io login"].text == "not reached: see above"
    assert "503" in wrong(found)["canary pull"]


async def test_a_name_that_does_not_resolve_is_named(healthy: SetUp) -> None:
    found = await healthy.examine(upstreams=healthy.upstream(url="http://registry.invalid"))
    assert wrong(found)["docker.io DNS"] == "registry.invalid does not resolve"


async def test_a_proxy_is_looked_at_in_place_of_the_upstream(healthy: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{free_port()}")
    found = await healthy.examine(upstreams=healthy.upstream(url="http://registry.invalid"))
    assert found["docker.io DNS"].text == "the HTTP proxy 127.0.0.1 is 127.0.0.1"
    assert "the HTTP proxy 127.0.0.1:" in wrong(found)["docker.io TCP"]
    assert "secret" not in str(found)


async def test_something_that_is_no_registry_is_named(healthy: SetUp) -> None:
    healthy.hub.fail("ping", 200, body=b"<html>please log in")
    healthy.hub.change("ping", lambda answer: answer.headers.clear())
    found = await healthy.examine()
    assert "that is not a registry" in wrong(found)["docker.io challenge"]


@pytest.mark.parametrize(("offset", "side"), [(-7200.0, "2h fast"), (86400.0, "1d slow")])
async def test_a_wrong_clock_is_named(healthy: SetUp, offset: float, side: str) -> None:
    set_date(healthy.hub, offset)
    found = await healthy.examine()
    assert list(wrong(found)) == ["docker.io clock"]
    assert wrong(found)["docker.io clock"].startswith(f"this machine's clock is {side}: certificates and tokens")
    assert "timedatectl" in (found["docker.io clock"].cure or "")


async def test_another_registry_has_no_quota_and_its_base_is_asked(healthy: SetUp) -> None:
    options = healthy.upstream(name="registry.example")
    found = await findings(case_of(replace(healthy.config, upstreams=options), None))
    assert found["registry.example scope"].text == "the registry takes it"
    assert found["registry.example quota"].state is State.SKIPPED
    assert found["canary pull"].text.startswith("docker.io is no upstream here")
    assert not [each for each in healthy.hub.requests if each.repository == PROBE]
    assert healthy.hub.token_count(ANONYMOUS) == 0


# The listeners


async def test_a_port_that_is_taken_is_named_with_who_took_it(healthy: SetUp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = ServerOptions(listen=Address(*taken.getsockname()))
        case = replace(healthy.case(server=server), canary=None, root=None)
        # Whoever holds it does not answer; nobody waits for that longer than a few seconds.
        found = await findings(case)
    assert "is taken by " in wrong(found)["client listener"]
    assert "(pid " in wrong(found)["client listener"]
    assert "[server] listen" in (found["client listener"].cure or "")


async def test_a_port_of_another_web_server_is_named(healthy: SetUp) -> None:
    listen = healthy.config.admin.listen
    found = await healthy.examine(server=ServerOptions(listen=listen))
    assert "was answered 404, and not by pullthrough" in wrong(found)["client listener"]


async def test_before_the_start_a_free_port_is_well(healthy: SetUp) -> None:
    server, admin = (Address("127.0.0.1", free_port()) for _ in range(2))
    found = await findings(
        case_of(
            replace(healthy.config, server=ServerOptions(listen=server), admin=AdminOptions(listen=admin)), root=None
        )
    )
    assert found["client listener"].text == f"http://{server} is free; pullthrough is not running"
    assert found["admin listener"].text == "pullthrough is not running"
    assert found["canary pull"].state is State.SKIPPED


async def test_a_running_cache_with_another_admin_listener_is_named(healthy: SetUp) -> None:
    found = await healthy.examine(admin=AdminOptions(listen=Address("127.0.0.1", free_port())))
    assert "another [admin] listen" in (found["admin listener"].cure or "")
    assert found["admin listener"].state is State.FAILED


async def test_a_url_where_nothing_answers_is_named(healthy: SetUp) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    found = await findings(case_of(healthy.config, None, url))
    assert wrong(found)["client listener"].startswith(f"{url} cannot be asked")
    assert f"curl -i {url}/v2/" in (found["client listener"].cure or "")


# The folder


async def test_the_folder_of_the_running_cache_is_well(healthy: SetUp) -> None:
    found = await healthy.examine()
    assert "in use by" in found["cache folder"].text
    assert not list(healthy.cache.directory.glob(".doctor*"))


async def test_a_folder_that_is_held_by_a_stranger_is_named(healthy: SetUp) -> None:
    listen = Address("127.0.0.1", free_port())
    found = await healthy.examine(server=ServerOptions(listen=listen))
    assert "and nothing answers at the configured address" in wrong(found)["cache folder"]


async def test_a_file_in_place_of_the_folder_is_named(healthy: SetUp, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = await healthy.examine(cache=CacheOptions(directory=tmp_path / "file"))
    assert wrong(found) == {"cache folder": f"{tmp_path / 'file'} is not a folder"}


# Time


async def test_a_check_that_hangs_is_given_up(healthy: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> Any:
        await asyncio.Event().wait()

    async def pass_by() -> Any:
        return ok("fine")

    given = [Check("first", hang, 0.01), Check("second", pass_by)]
    monkeypatch.setattr("proxy.doctor.examination.checks", lambda case, upstreams: given)
    found: Findings = await findings(healthy.case())
    assert found["first"].text.startswith("came to no end within")
    assert found["second"] == ok("fine")
