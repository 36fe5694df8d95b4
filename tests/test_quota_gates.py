"""After the request limit: gates open a little late, at random, and what passes then is spaced; gates outlive us."""

from __future__ import annotations

import asyncio

import pytest

from proxy.oci.errors import TooManyRequests
from proxy.oci.names import Digest, Repository
from proxy.policy.quota import gates
from proxy.policy.quota.gates import (
    FIRST_SPACING_SECONDS,
    JITTER,
    MAX_PAUSE_SECONDS,
    MAX_SLOT_SECONDS,
    RECOVERY_SECONDS,
    Gate,
    Limits,
)
from proxy.policy.quota.purpose import Asker, Purpose
from tests.fake_hub import FakeHub
from tests.upstream_rig import LATEST, REPOSITORY, asking

NOW = 1_000_000.0


@pytest.mark.parametrize(("chance", "pause"), [(0.0, 60.0), (0.5, 60 * (1 + JITTER / 2)), (1.0, 60 * (1 + JITTER))])
def test_the_request_limit_opens_later_than_upstream_said_and_never_earlier(chance: float, pause: float) -> None:
    limits = Limits()

    limits.refused(Gate.REQUESTS, 60, NOW, chance)

    assert limits.closed_for(Gate.REQUESTS, NOW) == pause


def test_the_pull_limit_opens_when_upstream_said() -> None:
    limits = Limits()

    limits.refused(Gate.PULLS, 60, NOW, 1.0)

    assert limits.closed_for(Gate.PULLS, NOW) == 60


def test_nothing_is_spaced_before_a_request_limit_was_met() -> None:
    limits = Limits()

    assert [limits.slot("hub", NOW) for _ in range(100)] == [0.0] * 100


def test_requests_are_spaced_when_the_request_limit_has_opened_and_less_and_less() -> None:
    limits = Limits()
    limits.refused(Gate.REQUESTS, 60, NOW)

    early = [limits.slot("hub", NOW + 60) for _ in range(3)]
    late = [limits.slot("hub", NOW + 60 + RECOVERY_SECONDS / 2) for _ in range(3)]

    assert early == [0.0, FIRST_SPACING_SECONDS, 2 * FIRST_SPACING_SECONDS]
    assert late == [0.0, FIRST_SPACING_SECONDS / 2, FIRST_SPACING_SECONDS]
    assert limits.slot("hub", NOW + 60 + RECOVERY_SECONDS) == 0.0
    assert limits.slot("hub", NOW + 60 + RECOVERY_SECONDS) == 0.0


def test_those_who_would_wait_too_long_for_their_turn_are_told_when_to_come() -> None:
    limits = Limits()
    limits.refused(Gate.REQUESTS, 60, NOW)

    with pytest.raises(TooManyRequests, match="hub was asked too often") as refusal:
        for _ in range(100):
            limits.slot("hub", NOW + 60)

    assert refusal.value.retry_after is not None and refusal.value.retry_after > MAX_SLOT_SECONDS


def test_the_pull_limit_spaces_nothing() -> None:
    limits = Limits()
    limits.refused(Gate.PULLS, 60, NOW)

    assert [limits.slot("hub", NOW + 60) for _ in range(3)] == [0.0] * 3


def test_closed_gates_outlive_the_process() -> None:
    before, after = Limits(), Limits()
    before.refused(Gate.PULLS, 600, NOW)
    before.refused(Gate.REQUESTS, 60, NOW)

    after.restore(before.closed(NOW + 10), 5.0)

    assert (after.closed_for(Gate.PULLS, 5.0), after.closed_for(Gate.REQUESTS, 5.0)) == (590.0, 50.0)
    assert after.probe_due(5.0 + 600)
    assert after.slot("hub", 5.0 + 50) == 0.0 and after.slot("hub", 5.0 + 50) > 0.0


def test_a_gate_that_has_opened_is_not_closed_again_by_what_was_before() -> None:
    before, after = Limits(), Limits()
    before.refused(Gate.PULLS, 60, NOW)

    after.restore(before.closed(NOW + 60), 5.0)

    assert after.closed(5.0) == {}


def test_what_was_closed_for_ever_is_closed_within_reason() -> None:
    limits = Limits()

    limits.restore({Gate.PULLS: 1e12}, 0.0)

    assert limits.closed_for(Gate.PULLS, 0.0) == MAX_PAUSE_SECONDS["pulls"]


def test_a_gate_that_closed_meanwhile_stays_as_it_is() -> None:
    limits = Limits()
    limits.refused(Gate.PULLS, 60, 0.0)

    limits.restore({Gate.PULLS: 600.0}, 0.0)

    assert limits.closed_for(Gate.PULLS, 0.0) == 60


async def test_heads_are_spaced_after_the_request_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "MAX_SLOT_SECONDS", 0.6)
    slept: list[float] = []
    sleep = asyncio.sleep

    async def sleeping(seconds: float) -> None:
        slept.append(seconds)
        await sleep(seconds)

    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        limited = hub.abuse_limit(retry_after=60)
        with pytest.raises(TooManyRequests):
            await upstream.head_manifest(REPOSITORY, LATEST)
        hub.heal()
        hub.reset_counts()
        upstream.clock.turn(60 * (1 + JITTER))

        monkeypatch.setattr("proxy.upstream.client.asyncio.sleep", sleeping)
        questions = [upstream.head_manifest(REPOSITORY, LATEST) for _ in range(100)]
        answers = await asyncio.gather(*questions, return_exceptions=True)

        refused = [each for each in answers if isinstance(each, TooManyRequests)]
        assert limited.used == 1
        assert 1 <= hub.count("HEAD", "manifest") == 100 - len(refused) <= 3
        assert slept and all(0 < seconds <= FIRST_SPACING_SECONDS for seconds in slept)
        assert {"asked slowly now" in each.message for each in refused} == {True}


async def test_a_probe_is_a_head_of_what_docker_hub_has_for_that() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image("ratelimitpreview/test", "latest")

        await upstream.probe()

        assert hub.count("HEAD", "manifest", "latest", repository="ratelimitpreview/test") == 1
        assert hub.count("GET", "manifest") == 0
        assert upstream.account.ledger.last is not None and upstream.account.ledger.last.by == "probe"


async def test_another_registry_is_probed_with_what_told_its_limit_before() -> None:
    async with FakeHub() as hub, asking(hub, name="registry.example") as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.probe()
        assert hub.requests == []

        await upstream.head_manifest(Repository("registry.example", REPOSITORY.name), LATEST)
        await upstream.probe()

        assert hub.count("HEAD", "manifest", "latest", repository=REPOSITORY.name) == 2
        assert hub.count("GET", "manifest") == 0


async def test_a_counted_pull_is_written_down_with_who_asked_and_why() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest")
        purpose = Purpose(Asker("10.0.0.7", "docker"), "changed")

        await upstream.get_manifest(REPOSITORY, Digest.parse(image.digest), purpose=purpose)

        (spend,) = upstream.account.ledger.spends(0.0)
        assert (spend.repository, spend.reference, spend.purpose) == (str(REPOSITORY), image.digest, purpose)
        assert upstream.account.leak.unexplained(upstream.clock.now) == 0
