"""What an account is known to have, after whatever an upstream said: the right gauge, or none."""

from __future__ import annotations

import pytest

from proxy.policy.quota import Gate
from proxy.policy.quota.account import Account
from proxy.policy.quota.governor import Level, Rules
from proxy.policy.quota.ledger import By
from proxy.policy.quota.purpose import NOBODY, Asker, Purpose, agent_kind

NOW = 1_000_000.0
PULL = Purpose(NOBODY, "new")


def said(remaining: object = 90, limit: object = 100, source: str = "id", window: str = ";w=21600") -> dict[str, str]:
    return {
        "ratelimit-limit": f"{limit}{window}",
        "ratelimit-remaining": f"{remaining}{window}",
        "docker-ratelimit-source": source,
    }


PAID = {"docker-ratelimit-source": "a645ce4d-4328-42eb-8241-1624241605ef"}
EMPTY = {"ratelimit-limit": "", "ratelimit-remaining": "", "docker-ratelimit-source": ""}


@pytest.mark.parametrize(
    ("headers", "kind", "limit", "remaining", "window"),
    [
        (said(), "limited", 100, 90, 21600),
        (said(0), "limited", 100, 0, 21600),
        (said(limit="100, 100", window=";w=21600"), "limited", 100, 90, 21600),
        ({"ratelimit-limit": "100", "ratelimit-remaining": "90"}, "limited", 100, 90, None),
        ({"ratelimit-limit": "100;w=21600"}, "limited", 100, None, 21600),
        ({"ratelimit-remaining": "7;w=60"}, "limited", None, 7, 60),
        (PAID, "unlimited", None, None, None),
        (EMPTY, "unknown", None, None, None),
        ({}, "unknown", None, None, None),
        (EMPTY | {"ratelimit-remaining": "no"}, "unknown", None, None, None),
    ],
)
def test_each_answer_gives_the_right_gauge_or_none(
    headers: dict[str, str], kind: str, limit: int | None, remaining: int | None, window: int | None
) -> None:
    account = Account("docker.io")

    account.heard(headers, "head", NOW)

    quota = account.limits.quota
    assert account.kind(NOW) == kind
    assert (quota and quota.limit, quota and quota.remaining, quota and quota.window) == (limit, remaining, window)


@pytest.mark.parametrize(
    ("by", "source", "kind"),
    [("head", "id", "limited"), ("get", PAID["docker-ratelimit-source"], "limited"), ("probe", "id", "unlimited")],
)
def test_a_sponsored_repository_does_not_take_the_limit_away_and_the_probe_does(by: By, source: str, kind: str) -> None:
    account = Account("docker.io")
    account.heard(said(), "head", NOW)

    account.heard({"docker-ratelimit-source": source}, by, NOW + 60)

    assert account.kind(NOW + 60) == kind


def test_a_limit_that_nobody_spoke_of_for_a_window_is_unknown() -> None:
    account = Account("docker.io")
    account.heard(said(3), "head", NOW)

    assert account.kind(NOW + 21600) == "limited"
    assert account.kind(NOW + 21601) == "unknown"
    assert account.level(Rules(), NOW + 21601) is Level.PLENTY


@pytest.mark.parametrize(
    "other", [said(40, source="another"), said(40, limit=200), said(40, source="another", limit=200)]
)
def test_another_account_address_or_limit_alarms_nobody(other: dict[str, str]) -> None:
    account = Account("docker.io")
    account.heard(said(90), "head", NOW)

    account.heard(other, "head", NOW + 60)
    account.heard(other | {"ratelimit-remaining": "39;w=21600"}, "head", NOW + 70)

    assert account.leak.unexplained(NOW + 70) == 1
    assert account.ledger.since == NOW + 60


def test_a_counter_that_falls_by_itself_is_noticed() -> None:
    account = Account("docker.io")
    account.heard(said(90), "head", NOW)
    account.spent("docker.io/a", "sha256:aa", PULL, NOW + 1)

    account.heard(said(50), "probe", NOW + 60)

    assert account.leak.unexplained(NOW + 60) == 39
    assert account.leak.is_suspected(NOW + 60)


def test_a_refusal_is_exhausted_whatever_headers_say() -> None:
    account = Account("docker.io")
    account.heard(said(90), "head", NOW)
    account.limits.refused(Gate.PULLS, 60, NOW + 1)

    assert account.level(Rules(), NOW + 2) is Level.EXHAUSTED
    assert account.level(Rules(), NOW + 61) is Level.PLENTY


def test_the_request_limit_uses_nothing_up() -> None:
    account = Account("docker.io")
    account.heard(said(90), "head", NOW)
    account.limits.refused(Gate.REQUESTS, 60, NOW + 1)

    assert account.level(Rules(), NOW + 2) is Level.PLENTY
    assert account.forecast(NOW + 70).state == "too-little"


@pytest.mark.parametrize(
    ("user_agent", "kind"),
    [
        (
            "docker/29.0 go/go1.25 git-commit/x kernel/6 os/linux arch/amd64 containerd-client/2.3 UpstreamClient(x)",
            "docker",
        ),
        ("containerd/v2.1.0", "containerd"),
        ("buildkit/v0.25", "buildkit"),
        ("libpod/4.3.1", "podman"),
        ("skopeo/1.9.3", "skopeo"),
        ("Buildah/1.28.2", "buildah"),
        ("cri-o/1.30 go/go1.22", "cri-o"),
        ("containers/5.35 (github.com/containers/image)", "containers-image"),
        ("go-containerregistry/v0.20", "crane"),
        ("crane/v0.20 go-containerregistry/v0.20", "crane"),
        ("kaniko/v1.23", "kaniko"),
        ("regclient/regctl (v0.8)", "regclient"),
        ("", "other"),
        ("Mozilla/5.0", "other"),
        ("/", "other"),
        ("x" * 100_000, "other"),
    ],
)
def test_the_kind_of_a_client_is_of_a_bounded_list(user_agent: str, kind: str) -> None:
    assert agent_kind(user_agent) == kind


def test_an_asker_is_an_address_and_a_kind() -> None:
    assert Asker("10.0.0.7") == Asker("10.0.0.7", "other")
