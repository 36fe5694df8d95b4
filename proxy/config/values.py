"""The kinds of value a setting can have: how each is read, what to say when it cannot be, how it is written again."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from proxy.config.sources import ConfigError, Given
from proxy.oci.names import DOCKER_HUB, DOCKER_HUB_ALIASES
from proxy.policy import alerts
from proxy.units import Share, format_duration, format_size, parse_duration, parse_share, parse_size

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
_NAME = re.compile(rf"\A{_HOST}(?::\d{{1,5}})?\Z", re.ASCII)
_ADDRESS = re.compile(rf"\A({_HOST}|):(\d{{1,5}})\Z", re.ASCII)
_PATTERN: Final = re.compile(r"\A[a-z0-9._:/*?\[\]!-]{1,255}\Z", re.ASCII)
_HOOK: Final = re.compile(r"[!-~]{1,2000}")
_SWITCHES: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_MAX_PORT: Final = 65535

HIDDEN: Final = "***"
"""What is written instead of a secret."""

Plain = str | int | bool | list[str]
"""How a value is written in TOML or JSON."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. An empty host is every interface; port 0 is a free port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`0.0.0.0:5000`, `[::1]:5000` or `:5000`. Raises ValueError."""
        match = _ADDRESS.match(text)
        if match is None or int(match[2]) > _MAX_PORT:
            raise ValueError(text)
        return cls(match[1].strip("[]"), int(match[2]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Text that shows itself only when asked by name."""

    _text: str

    def reveal(self) -> str:
        """The text, for the one place that sends it."""
        return self._text

    def __str__(self) -> str:
        return HIDDEN

    __repr__ = __str__


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value. `parse` takes what TOML gave, or text from the environment; it raises ValueError."""

    expected: str
    parse: Callable[[Any], Any]
    show: Callable[[Any], Plain]
    echo: Callable[[object], str]

    def read(self, given: Given) -> Any:
        """The value. Raises ConfigError that names the place, the value and what was expected."""
        try:
            return self.parse(given.value)
        except ValueError:
            pass  # Left before raising, so that no traceback holds the value of a secret.
        raise ConfigError(f"{given.origin} is {self.echo(given.value)}; expected {self.expected}")


KEY: Final = "kind"
"""Where a dataclass field keeps its Kind, in its metadata."""

Metadata = Mapping[str, Kind]


def closest(text: str, candidates: Iterable[str]) -> str | None:
    """The candidate that was probably meant."""
    found = difflib.get_close_matches(text, list(candidates), n=1)
    return found[0] if found else None


def _text(value: object) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if not text or not text.isprintable():
        raise ValueError
    return text


def _number(value: object) -> str:
    """A number as TOML or the environment gives it, as text. True is an int in Python, and no number here."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    return str(value)


def _duration(value: object) -> float:
    return parse_duration(_number(value))


def _positive_duration(value: object) -> float:
    seconds = _duration(value)
    if seconds <= 0:
        raise ValueError
    return seconds


def _size(value: object) -> int:
    return parse_size(_number(value))


def _share(value: object) -> Share:
    return parse_share(_number(value))


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in _SWITCHES:
        raise ValueError
    return _SWITCHES[value.lower()]


def _path(value: object) -> Path:
    try:
        return Path(_text(value)).expanduser()
    except RuntimeError as cause:  # No home folder is known.
        raise ValueError from cause


def _address(value: object) -> Address:
    return Address.parse(_text(value))


def _name(value: object) -> str:
    name = _text(value)
    if name != name.lower() or not _NAME.match(name) or urlsplit(f"//{name}").port == 0:
        raise ValueError
    return DOCKER_HUB if name in DOCKER_HUB_ALIASES else name


def _url(value: object) -> str:
    """Scheme, host and port alone: `https://registry-1.docker.io`."""
    parts = urlsplit(_text(value))
    rest = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or rest or not _NAME.match(parts.netloc) or parts.port == 0:
        raise ValueError
    return f"{parts.scheme}://{parts.netloc.lower()}"


def parse_hook(value: object) -> Secret:
    """The URL of a webhook, all of it a secret: the path of many is their password. Raises ValueError."""
    text = _text(value)
    parts = urlsplit(text)
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme not in ("http", "https") or not _HOOK.fullmatch(text) or not _NAME.match(host) or parts.port == 0:
        raise ValueError
    return Secret(text)


def _alerts(value: object) -> tuple[str, ...]:
    """A list of names of alerts, or text with commas, as the environment gives it."""
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, list):
        raise ValueError
    names = tuple(_text(entry) for entry in entries)
    if not set(names) <= set(alerts.NAMES):
        raise ValueError
    return names


def _proxy(value: object) -> str:
    return "direct" if value == "direct" else _url(value)


def _count(value: object) -> int:
    text = _number(value)
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII):
        raise ValueError
    return int(text)


def _some(value: object) -> int:
    count = _count(value)
    if not count:
        raise ValueError
    return count


def _names(value: object) -> tuple[str, ...]:
    """A list of names, or text with commas, as the environment gives it."""
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, list):
        raise ValueError
    names = tuple(_name(entry) for entry in entries)
    if len(set(names)) != len(names):
        raise ValueError
    return names


def _percent(value: object) -> Share:
    share = _share(value)
    if not share.percent:
        raise ValueError
    return share


def _patterns(value: object) -> tuple[str, ...]:
    """A list of patterns, or text with commas, as the environment gives it."""
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, list):
        raise ValueError
    patterns = tuple(_text(entry) for entry in entries)
    if not all(_PATTERN.match(pattern) for pattern in patterns):
        raise ValueError
    return patterns


def _echo_url(value: object) -> str:
    """A URL without what could be a password in it."""
    return (
        repr(value)
        if isinstance(value, str) and not set("@?#") & set(value)
        else "not shown, as it may hold a password"
    )


def _show_size(value: int) -> str | int:
    text = format_size(value)
    return text if parse_size(text) == value else value


def _show_share(value: Share) -> str | int:
    return str(value) if value.percent else _show_size(int(value.amount))


def _kind(
    expected: str,
    parse: Callable[[Any], Any],
    show: Callable[[Any], Plain] = str,
    echo: Callable[[object], str] = repr,
) -> Metadata:
    return {KEY: Kind(expected, parse, show, echo)}


_A_DURATION: Final = 'a duration such as "5m", "1h30m" or a number of seconds'

ADDRESS: Final = _kind('an address such as "0.0.0.0:5000", "[::1]:5000" or ":5000"', _address)
DURATION: Final = _kind(_A_DURATION, _duration, format_duration)
POSITIVE_DURATION: Final = _kind(f"{_A_DURATION}, more than 0", _positive_duration, format_duration)
SIZE: Final = _kind('a size such as "32MiB", "1GB" or a number of bytes', _size, _show_size)
SHARE: Final = _kind('a size such as "50GiB", or a share such as "10%"', _share, _show_share)
PERCENT: Final = _kind('a share such as "10%"', _percent, _show_share)
SWITCH: Final = _kind("true or false", _switch, bool)
TEXT: Final = _kind("text", _text)
PATH: Final = _kind("a path", _path)
NAME: Final = _kind('a lower-case host such as "docker.io" or "registry.example:5000"', _name)
URL: Final = _kind('"https://host" or "http://host", with no path, user or query', _url, echo=_echo_url)
PROXY: Final = _kind('"http://host:port", or "direct" for none', _proxy, echo=_echo_url)
COUNT: Final = _kind("a whole number", _count, int)
SOME: Final = _kind("a whole number from 1 on", _some, int)
NAMES: Final = _kind('a list of names of upstreams, such as ["mirror.gcr.io"]', _names, list)
PATTERNS: Final = _kind('a list of names of repositories, such as ["library/*"]', _patterns, list)
HOOK: Final = _kind('"https://host/path"', parse_hook, echo=lambda value: "not shown, as it is a secret")
ALERTS: Final = _kind(f"a list of names of alerts, which are {', '.join(alerts.NAMES)}", _alerts, list)
SECRET: Final = _kind("a secret of printable text", lambda value: Secret(_text(value)), echo=lambda value: HIDDEN)


def choice(*words: str) -> Metadata:
    """One of these words."""

    def parse(value: object) -> object:
        if value not in words:
            raise ValueError
        return value

    return _kind(" or ".join(f'"{word}"' for word in words), parse)
