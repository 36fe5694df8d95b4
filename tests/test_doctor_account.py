"""What `doctor` makes of the answers of token servers and registries, by table."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config import Secret, UpstreamOptions
from proxy.doctor.findings import State
from proxy.doctor.judge.account import PROBE, granted, judge_login, judge_quota, judge_scope
from proxy.doctor.judge.network import TIMED_OUT, Attempt, judge_base, judge_connection, judge_name

PAT = "dckr_pat_secret"
HUB = UpstreamOptions(username="ann", password=Secret(PAT))
ANONYMOUS = UpstreamOptions()
OTHER = UpstreamOptions(name="ghcr.io", url="https://ghcr.io", username="ann", password_file=Path("/run/token"))
SOURCE = {"docker-ratelimit-source": "a645ce4d-4328-42eb-8241-1624241605ef"}


@pytest.mark.parametrize(
    ("options", "status", "body", "text", "cure"),
    [
        (HUB, 401, b'{"details":"incorrect username or password"}', "ann or its access token is wrong", "DOCKERHUB_TO"),
        (HUB, 401, b'{"details":"personal access token is expired"}', "of ann has expired", "make one with"),
        (HUB, 401, b'{"details":"access token has insufficient scopes"}', "not allowed to pull", "Public Repo Read-on"),
        (HUB, 401, b"<html>", "is wrong", "make one with"),
        (HUB, 429, b"too many failed login attempts for username or IP address", "locked", "Wait 15 minutes"),
        (HUB, 429, b"Too Many Requests (HAP429).\n", "takes no more requests", "Wait a few minutes"),
        (HUB, 503, b"", "answered 503", "later"),
        (ANONYMOUS, 401, b"", "nobody gets a token anonymously", "username and a password_file"),
        (OTHER, 403, b"", "is wrong", "/run/token"),
        (replace(HUB, username="ann@example.org"), 401, b"", "is wrong", "not an e-mail address"),
    ],
)
def test_a_login_that_fails_is_named(options: UpstreamOptions, status: int, body: bytes, text: str, cure: str) -> None:
    finding = judge_login(options, status, body, has_token=False)
    assert finding.state is State.FAILED
    assert text in finding.text
    assert cure in (finding.cure or "")
    assert PAT not in str(finding)


def test_an_answer_without_a_token_is_none() -> None:
    assert judge_login(HUB, 200, b"<html>", has_token=False).state is State.FAILED
    assert judge_login(HUB, 200, b"{}", has_token=True).text == "logged in as ann"


@pytest.mark.parametrize(
    ("options", "status", "lets_pull", "state"),
    [
        (HUB, 200, True, State.OK),
        (HUB, 401, False, State.FAILED),
        (HUB, 401, None, State.FAILED),
        (HUB, 429, True, State.FAILED),
        (HUB, 500, True, State.FAILED),
        (replace(HUB, url="https://mirror.example"), 404, True, State.SKIPPED),
        (replace(HUB, url="https://mirror.example"), 401, False, State.SKIPPED),
        (replace(HUB, url="https://mirror.example"), 500, False, State.FAILED),
        (OTHER, 200, None, State.OK),
        (OTHER, 403, None, State.FAILED),
        (replace(OTHER, username=None, password_file=None), 401, None, State.SKIPPED),
    ],
)
def test_what_a_login_is_good_for(options: UpstreamOptions, status: int, lets_pull: bool | None, state: State) -> None:
    assert judge_scope(options, status, lets_pull=lets_pull).state is state


@pytest.mark.parametrize(
    ("headers", "state", "text"),
    [
        ({"ratelimit-limit": "200;w=21600", "ratelimit-remaining": "7;w=21600"}, State.OK, "7 pulls left of 200 in 6h"),
        ({"ratelimit-limit": "200;w=21600", "ratelimit-remaining": "0;w=21600"}, State.FAILED, "no pulls left of 200"),
        ({"ratelimit-remaining": "7"}, State.OK, "7 pulls left of an unknown limit"),
        (SOURCE, State.OK, "no limit headers: unlimited or sponsored, counted for the account"),
        ({}, State.OK, "no limit headers: unlimited or sponsored"),
        ({"docker-ratelimit-source": "2001:db8::"}, State.OK, "for the address 2001:db8::"),
    ],
)
def test_a_quota_is_told(headers: dict[str, str], state: State, text: str) -> None:
    finding = judge_quota(HUB, headers, 0.0)
    assert finding.state is state
    assert text in finding.text
    assert SOURCE["docker-ratelimit-source"] not in finding.text


def token(payload: object) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b'=').decode()}.c2ln"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (token({"access": [{"type": "repository", "name": PROBE, "actions": ["pull"]}]}), True),
        (token({"access": [{"name": PROBE, "actions": None}]}), False),
        (token({"access": [{"name": "other", "actions": ["pull"]}]}), False),
        (token({"access": []}), False),
        (token({"access": None}), None),
        (token([]), None),
        ("opaque", None),
        ("a.b.c", None),
        ("a.\xff.c", None),
    ],
)
def test_what_a_token_says_of_itself(value: str, expected: bool | None) -> None:
    assert granted(value, PROBE) is expected


@pytest.mark.parametrize(
    ("problem", "text"), [(111, "refuses connections"), (113, "No route to host"), (TIMED_OUT, "nothing answers")]
)
def test_why_a_connection_fails_is_named(problem: int, text: str) -> None:
    finding = judge_connection("hub", 443, [Attempt("192.0.2.1", problem)], proxy=False)
    assert finding.state is State.FAILED
    assert text in finding.text


def test_an_address_that_does_not_answer_is_told_where_another_does() -> None:
    attempts = [Attempt("2001:db8::1", TIMED_OUT), Attempt("192.0.2.1", None, 0.02)]
    assert (
        judge_connection("hub", 443, attempts, proxy=True).text
        == "the HTTP proxy hub:443 connected in 20 ms; 2001:db8::1 does not answer"
    )


def test_a_proxy_that_is_down_is_not_taken_for_the_upstream() -> None:
    finding = judge_connection("squid", 3128, [Attempt("192.0.2.1", 111)], proxy=True)
    assert finding.text == "the HTTP proxy squid:3128 cannot be reached: Connection refused"
    assert "HTTPS_PROXY" in (finding.cure or "")


def test_a_name_is_told_with_its_addresses() -> None:
    assert judge_name("hub", ["192.0.2.1", "192.0.2.2", "192.0.2.3"], proxy=False).text.endswith("and 1 more")
    assert judge_name("hub", [], proxy=True).text == "the HTTP proxy hub does not resolve"


@pytest.mark.parametrize(
    ("status", "scheme", "is_registrys", "state"),
    [
        (200, None, True, State.OK),
        (200, None, False, State.FAILED),
        (401, "bearer", True, State.OK),
        (401, "basic", True, State.OK),
        (401, None, True, State.FAILED),
        (302, None, False, State.FAILED),
        (429, None, False, State.FAILED),
        (503, None, False, State.FAILED),
    ],
)
def test_the_base_of_a_registry_is_known_by_its_answer(
    status: int, scheme: str | None, is_registrys: bool, state: State
) -> None:
    assert judge_base(status, scheme, "auth.example", is_registrys=is_registrys).state is state
