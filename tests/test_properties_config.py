"""Settings: whatever is written for one, it is a value or a ConfigError that says so, and never a secret."""

from __future__ import annotations

import contextlib
import json
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.config import SECTIONS as CLASSES
from proxy.config import Config, ConfigError, UpstreamOptions, describe, load
from proxy.units import (
    Share,
    format_duration,
    format_size,
    parse_duration,
    parse_share,
    parse_size,
)
from tests.properties import examples

UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
SIZES = {"B": 1, "kB": 1000, "KiB": 1024, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30, "TiB": 2**40}
SECTIONS = {**CLASSES, "upstream": UpstreamOptions}
KEYS = [(name, each.name) for name, cls in SECTIONS.items() for each in fields(cls)]

odd = st.sampled_from(
    [
        *("", " ", "0", "-1", "1", "5m", "10%", "101%", "32MiB", "true", "docker.io", "https://x", ":5000", "a,b"),
        *("nan", "inf", "1e9", "9" * 30, "[::1]:5", "\0", "\n", "/x", "~nobody/x", "http://user:pass@x", "0x10"),
        *("\u0661", "1_0"),
    ]
)
printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=12)
written = st.one_of(odd, printable)
values = st.one_of(
    written, st.integers(-5, 10**20), st.booleans(), st.floats(), st.lists(written, max_size=2), st.just({"a": 1})
)
keys = st.one_of(st.sampled_from(KEYS), st.sampled_from(KEYS), st.tuples(st.sampled_from([*SECTIONS, "x"]), printable))

durations = st.one_of(st.integers(1, 10**6), st.sampled_from(["5m", "1h30m", "500ms", "1.5s", "7d"]))
sizes = st.one_of(st.integers(0, 10**12), st.sampled_from(["0B", "32MiB", "1.5GB", "10 kB", "1TiB"]))
good = st.one_of(
    st.tuples(
        st.sampled_from([("server", "shutdown_timeout"), ("freshness", "tags"), ("upstream", "tags")]), durations
    ),
    st.tuples(st.sampled_from([("cache", "memory"), ("cache", "scrub_rate"), ("cache", "max_size")]), sizes),
    st.tuples(st.just(("cache", "min_free")), st.sampled_from(["0%", "5%", "99.5%", "100 %", "2GiB"])),
    st.tuples(st.sampled_from([("server", "max_requests"), ("upstream", "transfers")]), st.integers(0, 999_999)),
    st.tuples(st.sampled_from([("server", "setup"), ("log", "access")]), st.sampled_from([True, False, "yes", "off"])),
    st.tuples(st.just(("server", "listen")), st.sampled_from([":1", "0.0.0.0:5000", "[::1]:65535", "a.b-c:0"])),
    st.tuples(st.just(("upstream", "url")), st.sampled_from(["https://x", "http://Registry.Example:80/"])),
    st.tuples(st.just(("upstream", "proxy")), st.sampled_from(["direct", "http://x:3128"])),
    st.tuples(st.just(("cache", "directory")), st.sampled_from(["/x", "relative/y", "/with space"])),
)
"""Keys with values that they can have."""


def toml(value: Any) -> str:
    """A value in TOML, whose basic strings and arrays are those of JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf").replace("\\u007f", "\x7f")


def document(settings: list[tuple[tuple[str, str], Any]]) -> str:
    """A file of these settings, each key once."""
    tables: dict[str, dict[str, Any]] = {}
    for (section, key), value in settings:
        tables.setdefault(section, {})[key] = value
    lines: list[str] = []
    for section, table in tables.items():
        lines.append("[[upstream]]" if section == "upstream" else f"[{section}]")
        lines += [f"{json.dumps(key)} = {toml(value)}" for key, value in table.items()]
    return "\n".join(lines)


def read(path: Path | None, environ: dict[str, str]) -> tuple[Config | None, str]:
    """The settings, or what is wrong with them."""
    try:
        return load(path, environ), ""
    except ConfigError as error:
        return None, str(error)


# Units

durations_nearly = st.lists(
    st.tuples(st.sampled_from(["1", "15", "1.5", "1.", ".5", "0" * 16, "-1"]), st.sampled_from([*UNITS, "", "x", " "])),
    max_size=3,
).map(lambda parts: "".join(map("".join, parts)))


def is_number(text: str) -> bool:
    """Up to 15 digits, and up to 9 after a dot."""
    whole, dot, rest = text.partition(".")
    return all(
        each.isascii() and each.isdigit() and len(each) <= most
        for each, most in ((whole, 15), (rest if dot else "0", 9))
    )


@examples(160)
@given(st.one_of(durations_nearly, written, st.text(max_size=10)))
def test_a_duration_is_made_of_numbers_with_units_alone(text: str) -> None:
    parts = re.split("(ms|[dhms])", text.strip())
    numbers, units = parts[::2], parts[1::2]
    last = numbers.pop() if units or len(parts) > 1 else ""
    plain = len(parts) == 1 and is_number(parts[0])
    expected = plain or (bool(units) and last == "" and all(map(is_number, numbers)))
    try:
        parse_duration(text)
    except ValueError:
        assert not expected
    else:
        assert expected


@examples(160)
@given(st.one_of(written, st.text(max_size=10)))
def test_any_text_is_a_duration_a_size_and_a_share_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= parse_duration(text) < math.inf
    with contextlib.suppress(ValueError):
        assert parse_size(text) >= 0
    with contextlib.suppress(ValueError):
        share = parse_share(text)
        assert share.of(1000) >= 0 and (not share.percent or share.of(1000) <= 1000)


@examples(110)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(list(UNITS))), min_size=1, max_size=4))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    assert parse_duration(text) == math.fsum(number * UNITS[unit] for number, unit in parts)


@examples(110)
@given(st.integers(0, 10**10))
def test_a_duration_is_read_back_from_what_is_written(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@examples(110)
@given(st.integers(0, 4000), st.sampled_from(list(SIZES)), st.sampled_from(["", " "]))
def test_a_size_is_a_number_of_its_unit(number: int, unit: str, space: str) -> None:
    size = number * SIZES[unit]
    assert parse_size(f"{number}{space}{unit}") == parse_size(str(size)) == size
    assert parse_share(f"{number}{unit}") == Share(size)
    assert abs(parse_size(format_size(size)) - size) <= size * 0.051


# Files and environment


@examples(160)
@given(st.lists(st.one_of(good, st.tuples(keys, values)), max_size=6))
def test_any_file_is_a_configuration_or_an_error_that_says_where(
    tmp_path: Path, settings: list[tuple[tuple[str, str], Any]]
) -> None:
    path = tmp_path / "any.toml"
    path.write_text(document(settings), encoding="utf-8", errors="replace")
    config, wrong = read(path, {"HOME": "/home/x"})
    assert (config is None) == bool(wrong)
    if config is not None:
        assert describe(config)
        for (section, key), _ in settings:
            assert (section, key) in KEYS


@examples(80)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace"))))
def test_any_bytes_are_a_configuration_or_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.toml"
    path.write_bytes(content)
    config, wrong = read(path, {})
    assert (config is None) == bool(wrong)


@examples(160)
@given(st.lists(st.tuples(keys, written), max_size=5), st.lists(st.tuples(printable, written), max_size=2))
def test_any_environment_is_a_configuration_or_an_error(
    settings: list[tuple[tuple[str, str], str]], others: list[tuple[str, str]]
) -> None:
    environ = {f"PULLTHROUGH_{section}__{key}".upper(): value for (section, key), value in settings}
    environ |= {f"PULLTHROUGH_{name}".upper(): value for name, value in others}
    config, wrong = read(None, environ)
    assert (config is None) == bool(wrong)


SECRET = "hunter2-" + "s3cret"


@examples(160)
@given(
    st.lists(st.tuples(keys, written), max_size=4),
    st.sampled_from(
        [
            *("DOCKERHUB_TOKEN", "PULLTHROUGH_UPSTREAM__PASSWORD", "REGISTRY_PROXY_PASSWORD"),
            *("PULLTHROUGH_UPSTREAM__URL", "PULLTHROUGH_UPSTREAM__PROXY", "REGISTRY_PROXY_REMOTEURL"),
        ]
    ),
    st.tuples(st.one_of(st.just(""), odd), st.one_of(st.just(""), odd)),
    st.booleans(),
)
def test_a_secret_is_in_no_message_and_in_no_description(
    settings: list[tuple[tuple[str, str], str]], variable: str, around: tuple[str, str], named: bool
) -> None:
    secret = around[0] + SECRET + around[1]
    environ = {f"PULLTHROUGH_{section}__{key}".upper(): value for (section, key), value in settings}
    environ[variable] = f"https://user:{secret}@host" if variable.endswith(("URL", "PROXY")) else secret
    if named:
        environ["DOCKERHUB_USERNAME"] = "someone"
    config, wrong = read(None, environ)
    assert SECRET not in wrong
    if config is not None:
        assert SECRET not in repr(config)
        assert SECRET not in json.dumps(describe(config))


@examples(60)
@given(st.lists(good, max_size=6))
def test_what_is_described_is_read_back_the_same(tmp_path: Path, settings: list[tuple[tuple[str, str], Any]]) -> None:
    path = tmp_path / "any.toml"
    path.write_text(document(settings), encoding="utf-8")
    config = load(path, {})
    shown = [((section, key), value) for section, table in describe(config) for key, value in table.items()]
    path.write_text(document(shown), encoding="utf-8")
    assert load(path, {}) == config
