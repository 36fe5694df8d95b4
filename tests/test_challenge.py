"""WWW-Authenticate, read by its grammar (RFC 9110 section 11.6.1; PROTOCOL 2.1)."""

from __future__ import annotations

import pytest

from proxy.upstream.challenge import Challenge, parse_challenges

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
HUB_PARAMS = {"realm": "https://auth.docker.io/token", "service": "registry.docker.io"}


def bearer(**params: str) -> Challenge:
    return Challenge("bearer", params)


def basic(**params: str) -> Challenge:
    return Challenge("basic", params)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (HUB, [bearer(**HUB_PARAMS)]),
        (
            f'{HUB},scope="repository:acme/app:pull",error="insufficient_scope"',
            [bearer(**HUB_PARAMS, scope="repository:acme/app:pull", error="insufficient_scope")],
        ),
        ('Bearer scope="repository:a:pull,push",realm="r"', [bearer(scope="repository:a:pull,push", realm="r")]),
        ('bEARER REALM="r", Service="s"', [bearer(realm="r", service="s")]),
        ('Bearer realm = "r" , service\t=\t"s"', [bearer(realm="r", service="s")]),
        ("Bearer realm=https://a.example/token,service=s", [bearer(realm="https://a.example/token", service="s")]),
        (r'Basic realm="a \"quoted\" \\ realm"', [basic(realm=r'a "quoted" \ realm')]),
        ('Bearer realm="",service="s"', [bearer(realm="", service="s")]),
        ('Bearer realm="first",realm="second"', [bearer(realm="first")]),
        ("Basic", [basic()]),
        ("  Basic  ", [basic()]),
        ("Basic,", [basic()]),
        (",, ,Basic realm=r,,", [basic(realm="r")]),
    ],
)
def test_one_challenge(value: str, expected: list[Challenge]) -> None:
    assert parse_challenges([value]) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('Basic realm="b", Bearer realm="t",service="s"', [basic(realm="b"), bearer(realm="t", service="s")]),
        ('Bearer realm="t",service="s", Basic realm="b"', [bearer(realm="t", service="s"), basic(realm="b")]),
        ('Negotiate, Basic realm="b"', [Challenge("negotiate"), basic(realm="b")]),
        ("Negotiate oRQwEqADCgEBoQsGCSqGSIb3EgEC==, Basic realm=b", [Challenge("negotiate"), basic(realm="b")]),
        ("Negotiate abc=, Basic realm=b", [Challenge("negotiate"), basic(realm="b")]),
        ('Basic realm="b" Bearer realm="t"', [basic(realm="b"), bearer(realm="t")]),
        ('Basic realm="x, Bearer realm=\\"evil\\""', [basic(realm='x, Bearer realm="evil"')]),
    ],
)
def test_several_challenges_in_one_header(value: str, expected: list[Challenge]) -> None:
    assert parse_challenges([value]) == expected


def test_several_headers_keep_their_order() -> None:
    assert parse_challenges(["Negotiate", HUB, "Basic realm=b"]) == [
        Challenge("negotiate"),
        bearer(**HUB_PARAMS),
        basic(realm="b"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        (" ,\t, ", []),
        ('"Bearer realm=x"', []),
        ('"Bearer realm=x", Basic realm=b', [basic(realm="b")]),
        ('realm="no scheme"', []),
        ('realm="no scheme", Basic', [basic()]),
        ("=,=;\x00\xff", []),
        ('Basic realm="never ends', [basic()]),
        ('Basic service=s, realm="never ends, Bearer realm=t', [basic(service="s")]),
        ("Basic realm=", [basic()]),
        ("Bearer realm=r; Basic", [bearer(realm="r;"), basic()]),
        ("Bearer \udcff realm=r", [bearer(realm="r")]),
    ],
)
def test_garbage_is_passed_over(value: str, expected: list[Challenge]) -> None:
    assert parse_challenges([value]) == expected


@pytest.mark.parametrize("piece", ["a", "a;", '"', '"\\', " ", "a =", "Bearer a=,", "=", "B ", "\\"])
def test_no_header_takes_long(piece: str) -> None:
    """What fits in a header of 100 kB is read in time that grows with its length, not with its square."""
    assert isinstance(parse_challenges([piece * (100_000 // len(piece))]), list)


def test_what_is_understood_of_any_prefix_never_raises() -> None:
    value = f'{HUB},scope="a\\"b,c", Negotiate abc==, Basic realm=b'
    for end in range(len(value)):
        parse_challenges([value[:end], value[end:]])
