"""What an upstream lets us ask for: its headers, and the gates that its refusals close (PROTOCOL 1.3, 1.4)."""

from __future__ import annotations

import pytest

from proxy.oci.errors import TooManyRequests
from proxy.policy.quota import (
    DEFAULT_PAUSE_SECONDS,
    MAX_PAUSE_SECONDS,
    Gate,
    Limits,
    Quota,
    parse_limit,
    parse_retry_after,
    read_quota,
)

NOW = 1_800_000_000.0
BACK = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "7;w=21600"}
SPENT = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600"}


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        ("100;w=21600", (100, 21600)),
        (" 100 ; w=21600", (100, 21600)),
        ("0;w=21600", (0, 21600)),
        ("100", (100, None)),
        ("100, 100;w=21600", (100, 21600)),
        ("100, 200;w=60;comment=x", (200, 60)),
        ("", None),
        ("unlimited", None),
        ("-5", None),
        ("٣", None),
        ("9" * 5000, (999999999999, None)),
    ],
)
def test_a_limit_is_a_number_with_a_window_if_there_is_one(value: str, parsed: tuple[int, int | None] | None) -> None:
    assert parse_limit(value) == parsed


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("60", 60.0),
        (" 60 ", 60.0),
        ("0", 0.0),
        ("1800000090", 90.0),
        ("1700000000", 0.0),
        ("Fri, 15 Jan 2027 08:01:30 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-60", None),
        ("880.092µs, allowed: 44000/minute", None),
        ("9" * 13, None),
        ("Fri, 99 Jan 2027 08:01:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_an_epoch_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "quota"),
    [
        (BACK | {"docker-ratelimit-source": "id"}, Quota(100, 7, 21600, "id", NOW)),
        ({"ratelimit-remaining": "0;w=60"}, Quota(None, 0, 60, None, NOW)),
        ({"ratelimit-limit": "100"}, Quota(100, None, None, None, NOW)),
        ({"docker-ratelimit-source": "a645ce4d-4328-42eb-8241-1624241605ef"}, None),
        ({}, None),
    ],
)
def test_a_header_that_is_absent_is_unknown_and_never_zero(headers: dict[str, str], quota: Quota | None) -> None:
    assert read_quota(headers, NOW) == quota


def test_a_response_without_quota_leaves_the_last_word_standing(limits: Limits) -> None:
    limits.observe(BACK, NOW)
    limits.observe({}, NOW + 1)

    assert limits.quota is not None and limits.quota.remaining == 7


def test_all_gates_are_open_at_first(limits: Limits) -> None:
    limits.check(Gate.PULLS, "hub", NOW)
    limits.check(Gate.REQUESTS, "hub", NOW)

    assert not limits.is_exhausted(NOW)
    assert not limits.probe_due(NOW)


def test_the_pull_limit_closes_the_gate_of_pulls_alone(limits: Limits) -> None:
    limits.refused(Gate.PULLS, 60, NOW)

    limits.check(Gate.REQUESTS, "hub", NOW)
    with pytest.raises(TooManyRequests, match="pull limit of hub") as refusal:
        limits.check(Gate.PULLS, "hub", NOW + 10)
    assert refusal.value.retry_after == 50


def test_the_request_limit_closes_everything(limits: Limits) -> None:
    limits.refused(Gate.REQUESTS, 60, NOW)

    for gate in Gate:
        with pytest.raises(TooManyRequests, match="request limit of hub"):
            limits.check(gate, "hub", NOW + 59)
    limits.check(Gate.PULLS, "hub", NOW + 60)


@pytest.mark.parametrize("gate", Gate)
def test_a_refusal_without_retry_after_closes_for_our_own_pause(limits: Limits, gate: Gate) -> None:
    limits.refused(gate, None, NOW)

    assert limits.closed_for(gate, NOW) == DEFAULT_PAUSE_SECONDS[gate.value]


@pytest.mark.parametrize("gate", Gate)
@pytest.mark.parametrize(("said", "pause"), [(0.0, 1.0), (5.0, 5.0), (1e12, None)])
def test_what_upstream_says_is_kept_within_reason(limits: Limits, gate: Gate, said: float, pause: float | None) -> None:
    limits.refused(gate, said, NOW)

    assert limits.closed_for(gate, NOW) == (MAX_PAUSE_SECONDS[gate.value] if pause is None else pause)


def test_quota_that_is_back_opens_the_gate_of_pulls_before_its_time(limits: Limits) -> None:
    limits.refused(Gate.PULLS, 3600, NOW)
    limits.observe(BACK, NOW + 1)

    limits.check(Gate.PULLS, "hub", NOW + 1)
    assert not limits.probe_due(NOW + 1)


def test_quota_that_is_back_does_not_open_the_gate_of_requests(limits: Limits) -> None:
    limits.refused(Gate.REQUESTS, 60, NOW)
    limits.observe(BACK, NOW + 1)

    assert limits.closed_for(Gate.REQUESTS, NOW + 1) == 59


def test_no_quota_keeps_the_gate_of_pulls_as_it_is(limits: Limits) -> None:
    limits.refused(Gate.PULLS, 60, NOW)
    limits.observe(SPENT, NOW + 1)

    assert limits.closed_for(Gate.PULLS, NOW + 1) == 59


def test_after_the_pause_a_probe_is_due_until_the_gate_opens(limits: Limits) -> None:
    limits.refused(Gate.PULLS, 60, NOW)

    assert not limits.probe_due(NOW + 59)
    assert limits.probe_due(NOW + 60)
    limits.open(Gate.PULLS)
    assert not limits.probe_due(NOW + 60)


def test_a_probe_that_finds_no_quota_closes_the_gate_again(limits: Limits) -> None:
    limits.refused(Gate.PULLS, 60, NOW)
    limits.observe(SPENT, NOW + 60)

    assert limits.closed_for(Gate.PULLS, NOW + 60) == DEFAULT_PAUSE_SECONDS["pulls"]


def test_no_probe_is_due_while_everything_is_refused(limits: Limits) -> None:
    limits.refused(Gate.PULLS, 10, NOW)
    limits.refused(Gate.REQUESTS, 60, NOW)

    assert not limits.probe_due(NOW + 30)


def test_pulls_are_exhausted_when_the_gate_is_closed_or_nothing_remains(limits: Limits) -> None:
    limits.observe(SPENT, NOW)
    assert limits.is_exhausted(NOW)
    limits.observe(BACK, NOW)
    assert not limits.is_exhausted(NOW)
    limits.refused(Gate.PULLS, 60, NOW)
    assert limits.is_exhausted(NOW)
