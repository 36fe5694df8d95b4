"""Where settings are written: a TOML file and the environment, put together as text and origin, not yet understood.

The environment wins over the file, and the more particular name over the less: `DOCKERHUB_*` over `PULLTHROUGH_*` over
the names that people bring from `registry:2`. An empty variable counts as unset, since compose files pass those on.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PREFIX: Final = "PULLTHROUGH_"
SECRETS: Final = frozenset({"password", "password_file"})
"""The two ways to give an upstream's secret, of which one is enough."""
HOOK_URL: Final = frozenset({"url", "url_file"})
"""And those to give the URL of a webhook, which is one too."""

_ALIASES: Final = {
    "REGISTRY_HTTP_ADDR": ("server", "listen"),
    "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": ("cache", "directory"),
    "REGISTRY_PROXY_REMOTEURL": ("upstream", "url"),
    "REGISTRY_PROXY_USERNAME": ("upstream", "username"),
    "REGISTRY_PROXY_PASSWORD": ("upstream", "password"),
}
_DOCKER_HUB: Final = {
    "DOCKERHUB_USERNAME": "username",
    "DOCKERHUB_TOKEN": "password",
    "DOCKERHUB_TOKEN_FILE": "password_file",
}
# Read elsewhere: by the command line, and by the tests.
_NOT_SETTINGS: Final = frozenset({"PULLTHROUGH_CONFIG", "PULLTHROUGH_REQUIRE_CLIENTS"})
# What Kubernetes puts into every container beside a Service called pullthrough or pullthrough-something.
_KUBERNETES: Final = re.compile(r"\A(\w+_)?(SERVICE_(HOST|PORT)|PORT)(_\w+)?\Z")


class ConfigError(Exception):
    """A setting that cannot be used. The message names it, its value and what was expected, and never a secret."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was written, and the name of the place, for messages."""

    origin: str
    value: object


Table = dict[str, Given]


@dataclass(slots=True)
class Sources:
    """Everything that was written. `hub` is what belongs to the upstream called docker.io, whichever that is."""

    sections: dict[str, Table] = field(default_factory=dict)
    upstreams: list[Table] = field(default_factory=list)
    hub: Table = field(default_factory=dict)


def read_sources(path: Path | None, environ: Mapping[str, str]) -> Sources:
    """The file, if any, with the environment laid over it. Raises ConfigError."""
    sources = Sources()
    if path is not None:
        _add_file(sources, _parse_file(path))
    present = {name: value for name, value in environ.items() if value.strip()}
    _add_environment(sources, present)
    return sources


def _parse_file(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise ConfigError(f"cannot read the configuration file {path}: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise ConfigError(f"{path} is not UTF-8 text") from cause
    except tomllib.TOMLDecodeError as cause:
        raise ConfigError(f"{path} is not TOML: {cause}") from cause


def _add_file(sources: Sources, document: dict[str, object]) -> None:
    for section, content in document.items():
        if section == "upstream":
            sources.upstreams = [_upstream(entry, number) for number, entry in _numbered(content)]
        elif isinstance(content, dict):
            sources.sections[section] = {key: Given(f"{section}.{key}", value) for key, value in content.items()}
        else:
            raise ConfigError(f"{section} stands outside of any section; expected it below a line such as [server]")


def _numbered(content: object) -> list[tuple[int, object]]:
    if not isinstance(content, list):
        raise ConfigError("[upstream] is a list: write [[upstream]], once for every upstream registry")
    return list(enumerate(content, start=1))


def _upstream(entry: object, number: int) -> Table:
    if not isinstance(entry, dict):
        raise ConfigError("upstream is a list of tables: write [[upstream]], once for every upstream registry")
    if "password" in entry:
        raise ConfigError(
            f"upstream {number} has a password in the file; put it into a file of its own and name that in "
            "password_file, or set DOCKERHUB_TOKEN in the environment"
        )
    return {key: Given(f"upstream {number}: {key}", value) for key, value in entry.items()}


def _add_environment(sources: Sources, environ: Mapping[str, str]) -> None:
    """Lay the variables over the file. A secret from here replaces the file's, in whichever way that was given."""
    above: dict[str, Table] = {}
    for variable, (section, key) in _ALIASES.items():
        if variable in environ:
            above.setdefault(section, {})[key] = Given(variable, environ[variable])
    for variable, name in _own_settings(environ):
        section, _, key = name.lower().partition("__")
        above.setdefault(section, {})[key] = Given(variable, environ[variable])
    default = above.pop("upstream", {})
    if default:
        sources.upstreams[:1] = [overlaid(sources.upstreams[0] if sources.upstreams else {}, default)]
    for section, table in above.items():
        either = HOOK_URL if section == "webhook" else frozenset[str]()
        sources.sections[section] = overlaid(sources.sections.get(section, {}), table, either)
    sources.hub = {key: Given(each, environ[each]) for each, key in _DOCKER_HUB.items() if each in environ}


def overlaid(table: Table, above: Table, either: frozenset[str] = SECRETS) -> Table:
    """`table` with `above` laid over it; a secret above replaces one below, in whichever of the ways that was given."""
    replaced = either if not either.isdisjoint(above) else frozenset[str]()
    return {key: given for key, given in table.items() if key not in replaced} | above


def _own_settings(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Our variables that should be settings, with their names below the prefix."""
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        injected = "__" not in name and _KUBERNETES.match(name)
        if name != variable and variable not in _NOT_SETTINGS and not injected:
            yield variable, name
