"""What clients and registries write into headers, against slow readings of it that were written apart."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qsl, urlencode

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.oci.errors import QueryInvalid, RangeInvalid
from proxy.oci.listings import MAX_QUERY_LENGTH, clean_query, next_query, passable_filters, passable_warnings
from proxy.oci.manifests import accept_key, accepts
from proxy.oci.names import Digest
from proxy.oci.ranges import parse_range
from proxy.policy.quota import Gate, Limits, Quota, parse_limit, parse_retry_after, read_quota
from proxy.server.responses import matches
from proxy.upstream.challenge import Challenge, parse_challenges
from tests.properties import examples

NOW = 1_800_000_000.0
TOKEN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~"
digits = st.text("0123456789", min_size=1, max_size=25)
anything = st.text(max_size=60)
noise = st.lists(
    st.one_of(st.sampled_from([*'",;=-<>()/ \t\\?#&%', "bytes=", "0", "1", "\udcaa"]), anything), max_size=12
).map("".join)


# Range


def asked_for(header: str, size: int) -> list[int] | str | None:
    """The positions that a Range asks for, one by one; None for all, "416" for a start beyond the end."""
    unit, equals, rest = header.partition("=")
    first, dash, last = rest.strip(" \t").partition("-")
    numbers = [each for each in (first, last) if each]
    if unit.lower() != "bytes" or not equals or not dash or not numbers:
        return None
    if any(not (each.isascii() and each.isdigit()) or len(each) > 19 for each in numbers):
        return None
    if not first:
        chosen = [position for position in range(size) if position >= size - int(last)]
        return chosen or None
    if last and int(last) < int(first):
        return None
    if size == 0:
        return None
    return [position for position in range(size) if int(first) <= position <= int(last or size)] or "416"


bounds = st.one_of(st.just(""), st.integers(0, 60).map(str))
good_ranges = st.builds("{}{}-{}".format, st.sampled_from(["bytes=", "Bytes= "]), bounds, bounds)
ranges = st.builds(
    "{}{}{}-{}{}".format,
    st.sampled_from(["bytes=", "bytes =", "byte=", "bytes", "items="]),
    st.sampled_from(["", "\t ", "\n", "-", "+"]),
    st.one_of(bounds, digits, st.just("\u0663")),
    st.one_of(bounds, digits),
    st.sampled_from(["", " ", ",", ",1-2", "-", "\n"]),
)


@examples(330)
@given(st.one_of(good_ranges, ranges, noise), st.integers(0, 50))
def test_a_range_asks_for_the_bytes_that_it_names(header: str, size: int) -> None:
    try:
        part = parse_range(header, size)
    except RangeInvalid as error:
        assert asked_for(header, size) == "416"
        assert error.detail == {"size": size}
        return
    expected = asked_for(header, size)
    if part is None:
        assert expected is None
    else:
        assert list(range(part.start, part.stop)) == expected
        assert part.content_range(size) == f"bytes {part.start}-{part.stop - 1}/{size}"


# Accept and If-None-Match

types = st.sampled_from(
    ["application/vnd.oci.image.index.v1+json", "application/json", "text/html", "application/vnd.x+json", "a/b"]
)
spelled = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", " ", "\t"]),
    st.one_of(types, types.map(str.upper), st.sampled_from(["*/*", "application/*", ""])),
    st.sampled_from(["", ";q=0.5", " ; charset=utf-8", " "]),
)


@examples(160)
@given(st.lists(spelled, max_size=6), types, st.randoms(use_true_random=False))
def test_accept_is_the_set_of_types_however_it_is_spelled(
    parts: list[str], media_type: str, chance: random.Random
) -> None:
    wanted = {part.split(";")[0].strip(" \t").lower() for part in parts} - {""}
    expected = not wanted or bool(wanted & {media_type, "*/*", "application/*"})
    shuffled = chance.sample(parts, len(parts))
    cut = chance.randrange(len(parts) + 1)
    lines = [", ".join(shuffled[:cut]), ",".join(part.swapcase() for part in shuffled[cut:])]

    assert accepts([",".join(parts)], media_type) == accepts(lines, media_type) == expected
    assert accept_key([",".join(parts)]) == accept_key(lines)
    assert accepts([accept_key(lines)], media_type) == expected


@examples(80)
@given(st.lists(noise, max_size=4))
def test_any_accept_is_read(lines: list[str]) -> None:
    assert accept_key([accept_key(lines)]) == accept_key(lines)
    assert accept_key(lines).isascii()
    assert accepts(lines, "a/b") in (True, False)


@examples(80)
@given(st.lists(st.one_of(noise, st.sampled_from(['"{}"', 'W/"{}"', "{}", '"{}x"', "*"])), max_size=4))
def test_if_none_match_names_a_digest_only_whole(tags: list[str]) -> None:
    digest = Digest.of(b"")
    header = ", ".join(tag.replace("{}", str(digest)) for tag in tags)
    named = any(tag.strip() in ('"{}"', 'W/"{}"', "{}", "*") for part in tags for tag in part.split(","))
    if not set("/\"'\\ \t") & set("".join(each for each in tags if "{}" not in each)):
        assert matches(header, digest) == named


# WWW-Authenticate

tokens = st.text(TOKEN, min_size=1, max_size=8)
values = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
challenges = st.builds(Challenge, tokens.map(str.lower), st.dictionaries(tokens.map(str.lower), values, max_size=4))
spaces = st.sampled_from(["", " ", "  ", "\t"])


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@examples(160)
@given(st.lists(challenges, max_size=3), spaces, st.booleans())
def test_challenges_are_read_as_they_were_meant(meant: list[Challenge], space: str, together: bool) -> None:
    def written(challenge: Challenge) -> str:
        params = (f"{name}{space}={space}{quoted(value)}" for name, value in challenge.params.items())
        return f"{challenge.scheme.title()} " + f"{space},{space}".join(params)

    lines = [written(each) for each in meant]
    assert parse_challenges([", ".join(lines)] if together else lines) == meant


@examples(160)
@given(
    st.lists(st.one_of(noise, st.sampled_from(["Bearer realm=", '"a\\', "x=" * 20, '"' * 9, "a" * 3000])), max_size=4)
)
def test_any_challenge_is_read_without_complaint(lines: list[str]) -> None:
    for challenge in parse_challenges(lines):
        assert challenge.scheme == challenge.scheme.lower() != ""


# Link and queries

fields = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=12)), max_size=5)


def without_namespace(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(key, value) for key, value in pairs if key != "ns"]


@examples(160)
@given(fields, st.sampled_from(["/v2/a/tags/list", "https://evil.example/x", "", "../.."]), st.booleans())
def test_of_a_link_only_the_query_is_taken_and_nothing_is_lost_of_it(
    pairs: list[tuple[str, str]], path: str, quote: bool
) -> None:
    query = urlencode([*pairs, ("ns", "evil.example")])
    relation = '"next"' if quote else "next"
    link = f'</first?n=1>; rel="prev", <{path}?{query}#part>;title="a, b" ; rel={relation}'
    found = next_query([link])
    assert parse_qsl(found or "", keep_blank_values=True) == without_namespace(pairs)


@example(['<?n=\udcaa>; rel="next"'])
@examples(160)
@given(st.lists(st.one_of(noise, st.just('<?a=1>; rel="next"')), max_size=3))
def test_any_link_gives_a_query_that_can_be_sent_or_none(lines: list[str]) -> None:
    try:
        found = next_query(lines)
    except QueryInvalid:
        return
    if found is not None:
        assert found.isascii() and found.isprintable() and " " not in found
        assert 0 < len(found) <= MAX_QUERY_LENGTH
        assert clean_query(found) == found


@example("n=\udcaa")
@examples(110)
@given(st.one_of(noise, fields.map(lambda pairs: urlencode(pairs, errors="replace")), st.text(max_size=4000)))
def test_a_clean_query_stays_as_it_is(query: str) -> None:
    try:
        clean = clean_query(query)
    except QueryInvalid:
        return
    assert clean_query(clean) == clean
    assert "ns" not in dict(parse_qsl(clean, keep_blank_values=True))


@examples(80)
@given(st.lists(st.one_of(noise, noise.map('299 - "{}"'.format)), max_size=4))
def test_a_warning_that_is_passed_on_cannot_begin_another_header(values: list[str]) -> None:
    for warning in passable_warnings(values):
        assert warning.isascii() and warning.isprintable()
        assert warning.startswith('299 - "') and warning.endswith('"')


@examples(100)
@example(["\udcaa"])
@example(["a\r\nX: y"])
@given(st.lists(st.one_of(noise, st.just("artifactType")), max_size=4))
def test_filters_that_are_passed_on_cannot_begin_another_header(values: list[str]) -> None:
    filters = passable_filters(values)
    assert filters is None or (filters.isascii() and filters.isprintable())
    if set(values) == {"artifactType"}:
        assert filters == ", ".join(values)


# Limits

dates = st.builds(
    "{}, {:02} {} {:04} {:02}:00:00 {}".format,
    st.sampled_from(["Mon", "Xyz", ""]),
    st.integers(0, 32),
    st.sampled_from(["Jan", "Feb", "Dec", "?"]),
    st.one_of(st.integers(0, 2), st.integers(1969, 2100), st.integers(9998, 10001)),
    st.integers(0, 25),
    st.sampled_from(["GMT", "+0000", "-0000", "+2359", "-2359", "+9999", ""]),
)


@examples(160)
@given(st.one_of(noise, digits, st.floats().map(str), st.integers().map(str), dates))
def test_any_retry_after_is_a_time_to_wait_or_unclear(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


@examples(60)
@given(st.integers(0, 10**7))
def test_retry_after_says_the_same_in_seconds_as_a_date_and_as_an_epoch(seconds: int) -> None:
    date = format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)
    assert parse_retry_after(str(seconds), NOW) == seconds
    assert parse_retry_after(date, NOW) == seconds
    assert parse_retry_after(str(int(NOW) + seconds), NOW) == seconds


@examples(110)
@given(st.integers(0, 10**11), st.one_of(st.none(), st.integers(0, 10**8)), spaces)
def test_a_limit_is_read_with_its_window_also_from_a_list(limit: int, window: int | None, space: str) -> None:
    entry = f"{space}{limit}" + ("" if window is None else f"{space};{space}w={window}")
    assert parse_limit(entry) == (limit, window)
    assert parse_limit(f"{limit + 1}, {entry}") == ((limit, window) if window is not None else (limit + 1, None))


@examples(160)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "ratelimit-limit": st.one_of(noise, digits, st.just("100;w=21600")),
                "ratelimit-remaining": st.one_of(noise, digits, st.just("0;w=21600")),
                "docker-ratelimit-source": anything,
            },
        ),
        max_size=4,
    ),
    st.floats(0, 1e9),
)
def test_any_headers_of_a_quota_are_read_and_what_is_absent_is_never_0(
    headers: list[dict[str, str]], now: float
) -> None:
    limits = Limits()
    for each in headers:
        quota = read_quota(each, now)
        limits.observe(each, now)
        assert quota is None or isinstance(quota, Quota)
        if quota is not None:
            assert quota.remaining is None or parse_limit(each["ratelimit-remaining"]) is not None
            assert quota.limit is None or parse_limit(each["ratelimit-limit"]) is not None
    for gate in Gate:
        closed = limits.closed_for(gate, now)
        assert closed is None or closed > 0
