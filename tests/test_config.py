"""Settings: defaults, values, and what is said of those that cannot be used."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from proxy.config import (
    SECTIONS,
    Address,
    CacheOptions,
    Config,
    UpstreamOptions,
    describe,
    load,
)
from tests.config_rig import refusal, write

EXAMPLE = Path(__file__).parent.parent / "config" / "pullthrough.toml"


# Defaults


def test_nothing_given_is_a_mirror_of_docker_hub() -> None:
    assert load(None, dict(os.environ)).upstreams == (UpstreamOptions(),)
    assert load(None, {"HOME": "/home/alice"}).server.listen == Address("0.0.0.0", 5000)


def test_loading_nothing_gives_the_defaults_of_the_dataclasses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert load(None, {"XDG_CACHE_HOME": "/xdg"}) == Config()


@pytest.mark.parametrize(
    ("uid", "environ", "expected"),
    [
        (0, {"XDG_CACHE_HOME": "/xdg"}, "/var/lib/pullthrough"),
        (1000, {"XDG_CACHE_HOME": "/xdg"}, "/xdg/pullthrough"),
        (1000, {"HOME": "/home/alice"}, "/home/alice/.cache/pullthrough"),
        (1000, {"HOME": "/home/alice", "XDG_CACHE_HOME": "relative"}, "/home/alice/.cache/pullthrough"),
    ],
)
def test_the_cache_is_below_var_lib_for_root_and_in_the_cache_folder_of_others(
    monkeypatch: pytest.MonkeyPatch, uid: int, environ: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert load(None, environ).cache.directory == Path(expected)


def test_the_example_file_holds_every_setting_with_its_default() -> None:
    text = EXAMPLE.read_text()
    document = tomllib.loads(text)
    options = {**{name: getattr(Config(), name) for name in SECTIONS}, "upstream": UpstreamOptions()}
    assert list(document) == list(options)

    for section, defaults in options.items():
        table = document[section][0] if section == "upstream" else document[section]
        written = re.findall(r"^(?:# )?([a-z_]+) = ", _section(text, section), re.MULTILINE)
        assert written == [each.name for each in fields(defaults) if each.name != "password"]
        shown = dict(describe(Config(cache=CacheOptions(directory=Path("/unused")))))[section]
        assert table == {key: shown[key] for key in table}
        assert shown.keys() - table.keys() <= {"directory"}


def test_every_line_of_the_example_file_is_explained() -> None:
    for line in EXAMPLE.read_text().splitlines():
        assert not re.match(r"(# )?[a-z_]+ = ", line) or re.search(r"\S +# \S", line), line


def _section(text: str, name: str) -> str:
    _, _, after = text.partition(f"[{name}]")
    return re.split(r"^\[", after, flags=re.MULTILINE)[0]


def test_the_example_file_loads_as_it_is() -> None:
    config = load(EXAMPLE, {"XDG_CACHE_HOME": "/xdg"})
    assert config == load(None, {"XDG_CACHE_HOME": "/xdg"})


# Values


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("0.0.0.0:5000", Address("0.0.0.0", 5000), "0.0.0.0:5000"),
        ("[::1]:5000", Address("::1", 5000), "[::1]:5000"),
        (":5000", Address("", 5000), ":5000"),
        ("localhost:0", Address("localhost", 0), "localhost:0"),
        ("cache.example.com:65535", Address("cache.example.com", 65535), "cache.example.com:65535"),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, expected: Address, shown: str) -> None:
    assert Address.parse(text) == expected
    assert str(expected) == shown


@pytest.mark.parametrize(
    "text", ["", "5000", "host", "host:", "::1:5000", "host:65536", "host:-1", "ho st:1", "h:1\n", "a/b:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("[freshness]\ntags = '5m'", 300.0),
        ("[freshness]\ntags = 90", 90.0),
        ("[freshness]\ntags = 0", 0.0),
        ("[freshness]\ntags = '1h30m'", 5400.0),
    ],
)
def test_durations_are_text_or_seconds(tmp_path: Path, line: str, value: float) -> None:
    assert load(write(tmp_path, line), {}).freshness.tags == value


@pytest.mark.parametrize(("text", "value"), [("'64MiB'", 64 << 20), ("'1GB'", 10**9), ("4096", 4096), ("0", 0)])
def test_sizes_are_text_or_bytes(tmp_path: Path, text: str, value: int) -> None:
    assert load(write(tmp_path, f"[cache]\nmemory = {text}"), {}).cache.memory == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[freshness]\ntags = '5 parsecs'", "freshness.tags is '5 parsecs'; expected a duration"),
        ("[freshness]\ntags = true", "freshness.tags is True; expected a duration"),
        ("[freshness]\ntags = -5", "freshness.tags is -5; expected a duration"),
        ("[freshness]\ntags = nan", "freshness.tags is nan; expected a duration"),
        ("[freshness]\ntags = ['5m']", "freshness.tags is ['5m']; expected a duration"),
        ("[cache]\nmemory = '12 apples'", "cache.memory is '12 apples'; expected a size"),
        ("[cache]\nmemory = 1.5", "cache.memory is 1.5; expected a size"),
        ("[cache]\ndirectory = ''", "cache.directory is ''; expected a path"),
        ('[cache]\ndirectory = "a\\u0000b"', "expected a path"),
        ("[access]\nprivate = 'allow'", 'access.private is \'allow\'; expected "deny" or "serve"'),
        ("[log]\naccess = 'maybe'", "log.access is 'maybe'; expected true or false"),
        ("[log]\naccess = 1", "log.access is 1; expected true or false"),
        ("[server]\nlisten = 5000", "server.listen is 5000; expected an address such as"),
        ("[[upstream]]\nname = 'Docker.io'", "upstream 1: name is 'Docker.io'; expected a lower-case host"),
        ("[[upstream]]\nname = 'a/b'", "upstream 1: name is 'a/b'"),
        ("[[upstream]]\nname = 'host:70000'", "upstream 1: name is 'host:70000'"),
        ("[[upstream]]\nconnect_timeout = 0", "upstream 1: connect_timeout is 0; expected a duration"),
        ("[[upstream]]\n[[upstream]]\nname='a.b'\nurl='ftp://a.b'", "upstream 2: url is 'ftp://a.b'; expected"),
    ],
)
def test_a_bad_value_is_refused_with_key_value_and_what_was_expected(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(write(tmp_path, text), {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[servre]\nlisten = ':1'", "[servre]: no such section; did you mean server?"),
        ("[upstreams]\nname = 'x'", "[upstreams]: no such section; did you mean upstream?"),
        ("[empty-section]", "[empty-section]: no such section"),
        ("[log]\nlevle = 'info'", "log.levle: no such setting; did you mean level?"),
        ("[log]\nzzz = 'info'", "log.zzz: no such setting; [log] has level, format, access"),
        ("[[upstream]]\nusrname = 'x'", "upstream 1: usrname: no such setting; did you mean username?"),
        ("listen = ':1'", "listen stands outside of any section"),
        ("[upstream]\nname = 'x'", "write [[upstream]]"),
        ("upstream = [1]", "write [[upstream]]"),
        ("a = ", "is not TOML"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(write(tmp_path, text), {})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert refusal(missing, {}) == f"cannot read the configuration file {missing}: No such file or directory"

    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"# \xe9\n")
    assert refusal(latin, {}) == f"{latin} is not UTF-8 text"
