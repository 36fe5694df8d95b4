"""From a file and the environment to settings, and back to what would be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from proxy.config.options import DOCKER_HUB_URL, SECTIONS, Config, UpstreamOptions, default_directory
from proxy.config.sources import HOOK_URL, PREFIX, SECRETS, ConfigError, Given, Sources, Table, overlaid, read_sources
from proxy.config.values import KEY, NAME, URL, Kind, Plain, closest
from proxy.oci.names import DOCKER_HUB


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The settings of this file, if any, and this environment, which wins. Raises ConfigError."""
    sources = read_sources(path, environ)
    _refuse_unknown_sections(sources)
    sources.sections.setdefault("cache", {}).setdefault("directory", Given("default", str(default_directory(environ))))
    sections = {name: _build(cls, name, sources.sections.get(name, {})) for name, cls in SECTIONS.items()}
    _one_of(sources.sections.get("webhook", {}), HOOK_URL)
    _both_or_none(sources.sections.get("server", {}), "tls_certificate", "tls_key")
    return Config(**sections, upstreams=_upstreams(sources))


def describe(config: Config) -> list[tuple[str, dict[str, Plain]]]:
    """The sections in order, with every value as it would be written, secrets as `***`, unset ones left out."""
    tables = [(name, getattr(config, name)) for name in SECTIONS]
    tables += [("upstream", options) for options in config.upstreams]
    return [(name, _describe(options)) for name, options in tables]


def _describe(options: Any) -> dict[str, Plain]:
    values = ((each, getattr(options, each.name)) for each in fields(options))
    return {each.name: each.metadata[KEY].show(value) for each, value in values if value is not None}


def _refuse_unknown_sections(sources: Sources) -> None:
    for section, table in sources.sections.items():
        if section in SECTIONS:
            continue
        first = next(iter(table.values()), None)
        if first is not None and first.origin.startswith(PREFIX):
            raise ConfigError(f"{first.origin}: no such setting" + _did_you_mean(first.origin, _variables()))
        raise ConfigError(f"[{section}]: no such section" + _did_you_mean(section, [*SECTIONS, "upstream"]))


def _build(cls: type[Any], section: str, table: Table) -> Any:
    kinds: dict[str, Kind] = {each.name: each.metadata[KEY] for each in fields(cls)}
    values = {}
    for key, given in table.items():
        if key not in kinds:
            raise ConfigError(f"{given.origin}: no such setting" + _unknown_key(given, key, section, kinds))
        values[key] = kinds[key].read(given)
    return cls(**values)


def _unknown_key(given: Given, key: str, section: str, kinds: Mapping[str, Kind]) -> str:
    if given.origin.startswith(PREFIX):
        return _did_you_mean(given.origin, _variables())
    return _did_you_mean(key, kinds) or f"; [{section}] has {', '.join(kinds)}"


def _variables() -> list[str]:
    classes = {**SECTIONS, "upstream": UpstreamOptions}
    return [f"{PREFIX}{name}__{each.name}".upper() for name, cls in classes.items() for each in fields(cls)]


def _did_you_mean(text: str, candidates: Any) -> str:
    found = closest(text, candidates)
    return f"; did you mean {found}?" if found else ""


def _upstreams(sources: Sources) -> tuple[UpstreamOptions, ...]:
    tables = [_named(table) for table in sources.upstreams or [{}]]
    names = [table["name"].value for table in tables]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ConfigError(f"two upstreams are called {repeated}; expected every name once")
    if sources.hub and DOCKER_HUB not in names:
        variable = next(iter(sources.hub.values())).origin
        raise ConfigError(f"{variable} is set, but no upstream is called {DOCKER_HUB}; expected one, or it unset")
    if sources.hub:
        number = names.index(DOCKER_HUB)
        tables[number] = overlaid(tables[number], sources.hub)
    upstreams = tuple(_upstream(table) for table in tables)
    for options in upstreams:
        _check_fallbacks(options, [each.name for each in upstreams])
    return upstreams


def _check_fallbacks(options: UpstreamOptions, names: Sequence[str]) -> None:
    unknown = next((name for name in options.fallbacks if name not in names or name == options.name), None)
    if unknown is not None:
        others = ", ".join(name for name in names if name != options.name) or "there is no other yet"
        raise ConfigError(
            f"fallbacks of upstream {options.name} names {unknown}; expected other upstreams of this file: {others}"
        )


def _named(table: Table) -> Table:
    """With a name and a URL, each following from the other where only one is given."""
    name, url = table.get("name"), table.get("url")
    if name is not None:
        called: str = NAME[KEY].read(name)
    elif url is not None:
        called = NAME[KEY].parse(URL[KEY].read(url).partition("://")[2])
    else:
        called = DOCKER_HUB
    address = Given("default", DOCKER_HUB_URL if called == DOCKER_HUB else f"https://{called}")
    return {**table, "name": Given("name", called), "url": url or address}


def _upstream(table: Table) -> UpstreamOptions:
    options: UpstreamOptions = _build(UpstreamOptions, "upstream", table)
    secrets = _one_of(table, SECRETS)
    if options.username is not None and not secrets:
        wanted = "password_file, or DOCKERHUB_TOKEN or DOCKERHUB_TOKEN_FILE in the environment"
        raise ConfigError(f"{table['username'].origin} is given without a password; expected also {wanted}")
    if options.username is None and secrets:
        raise ConfigError(f"{secrets[0]} is given without a username; expected both or none")
    return options


def _both_or_none(table: Table, one: str, other: str) -> None:
    """Raises ConfigError."""
    for given, missing in ((one, other), (other, one)):
        if given in table and missing not in table:
            raise ConfigError(f"{table[given].origin} is given without {missing}; expected both or none")


def _one_of(table: Table, ways: frozenset[str]) -> list[str]:
    """Where the one secret is given that may be given in several ways, if it is. Raises ConfigError for more."""
    given = [each.origin for key, each in table.items() if key in ways]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are both given; expected one of them")
    return given
