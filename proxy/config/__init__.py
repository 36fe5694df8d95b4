"""Every setting, its default, and how it is read. Defaults stand here and nowhere else.

`load` reads a TOML file and the environment. What cannot be used - an unknown key, a bad value, half a pair of
credentials - is a ConfigError at the start, never a surprise later. Secrets come from a file or the environment, are
held as `Secret`, and have no way into a log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

from proxy.certificates import CertificateError, server_context
from proxy.config.sources import HOOK_URL, PREFIX, SECRETS, ConfigError, Given, Sources, Table, overlaid, read_sources
from proxy.config.values import (
    ADDRESS,
    ALERTS,
    COUNT,
    DURATION,
    HIDDEN,
    HOOK,
    KEY,
    NAME,
    NAMES,
    PATH,
    PATTERNS,
    PERCENT,
    POSITIVE_DURATION,
    PROXY,
    SECRET,
    SHARE,
    SIZE,
    SOME,
    SWITCH,
    TEXT,
    URL,
    Address,
    Kind,
    Plain,
    Secret,
    choice,
    closest,
    parse_hook,
)
from proxy.oci.names import DOCKER_HUB
from proxy.units import Share

__all__ = [
    "HIDDEN",
    "AccessOptions",
    "Address",
    "AdminOptions",
    "CacheOptions",
    "Config",
    "ConfigError",
    "FreshnessOptions",
    "LogOptions",
    "MetricsOptions",
    "Plain",
    "QuotaOptions",
    "Secret",
    "ServerOptions",
    "Share",
    "UpstreamOptions",
    "WebhookOptions",
    "check_files",
    "describe",
    "load",
    "parse_hook",
]

DOCKER_HUB_URL: Final = "https://registry-1.docker.io"


def default_directory(environ: Mapping[str, str]) -> Path:
    """The system's place for root, the user's cache folder for everybody else."""
    if os.geteuid() == 0:
        return Path("/var/lib/pullthrough")
    base = environ.get("XDG_CACHE_HOME", "")
    return (
        Path(base) if os.path.isabs(base) else Path(environ.get("HOME", "~")).expanduser() / ".cache"
    ) / "pullthrough"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The listener for clients, and what it takes from them at most; 0 is no limit.

    `workers` is how many processes serve them; with `tls_certificate`, the chain in PEM, and `tls_key` that is https,
    otherwise http, never both. `header_timeout` is how long a client may take to send a request's headers;
    `max_requests` is how many requests are answered at the same time, those that wait for upstream included; `memo`
    keeps the answers of a second for those who ask the same.
    """

    listen: Address = field(default=Address("0.0.0.0", 5000), metadata=ADDRESS)
    workers: int = field(default=1, metadata=SOME)
    tls_certificate: Path | None = field(default=None, metadata=PATH)
    tls_key: Path | None = field(default=None, metadata=PATH)
    shutdown_timeout: float = field(default=30.0, metadata=DURATION)
    reuse_port: bool = field(default=False, metadata=SWITCH)
    header_timeout: float = field(default=10.0, metadata=POSITIVE_DURATION)
    max_connections: int = field(default=8192, metadata=COUNT)
    max_connections_per_client: int = field(default=1024, metadata=COUNT)
    max_requests: int = field(default=4096, metadata=COUNT)
    memo: bool = field(default=True, metadata=SWITCH)
    setup: bool = field(default=True, metadata=SWITCH)
    catalog: bool = field(default=False, metadata=SWITCH)

    @property
    def scheme(self) -> str:
        """What clients speak: "https", or "http"."""
        return "http" if self.tls_certificate is None else "https"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminOptions:
    """The listener for metrics, health, status and keeping house.

    `changes` is who may change what is stored: "local" for whoever asks from this machine, "all" for whoever asks.
    """

    listen: Address = field(default=Address("127.0.0.1", 5001), metadata=ADDRESS)
    changes: Literal["local", "all"] = field(default="local", metadata=choice("local", "all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """Where blobs are kept, and how much room they may take.

    `memory` is the bytes of small ones that are held in memory too. `max_size` is what blobs take on disk at most, and
    `min_free` what stays free on it; percent are of the whole file system, and 0 is no limit. What was not used for
    `max_age` seconds goes, unless that is 0; what was used in the last `grace` seconds stays. `max_fills` is how many
    blobs are fetched at a time, 0 for no limit. All that is stored is read and hashed again every `scrub_interval`
    seconds, at `scrub_rate` bytes a second; a rate of 0 is never.
    """

    directory: Path = field(default_factory=lambda: default_directory(os.environ), metadata=PATH)
    memory: int = field(default=32 * 2**20, metadata=SIZE)
    max_size: Share = field(default=Share(0), metadata=SHARE)
    min_free: Share = field(default=Share(5, percent=True), metadata=SHARE)
    max_age: float = field(default=0.0, metadata=DURATION)
    grace: float = field(default=600.0, metadata=DURATION)
    max_fills: int = field(default=256, metadata=COUNT)
    scrub_rate: int = field(default=20 * 2**20, metadata=SIZE)
    scrub_interval: float = field(default=7 * 86400.0, metadata=POSITIVE_DURATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshnessOptions:
    """How long a tag is answered without asking upstream, in seconds."""

    tags: float = field(default=300.0, metadata=DURATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessOptions:
    """What happens to repositories that an anonymous client could not pull, and how long that is remembered."""

    private: Literal["deny", "serve"] = field(default="deny", metadata=choice("deny", "serve"))
    remember: float = field(default=6 * 3600.0, metadata=DURATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What is logged, and how; `access` is the line a request."""

    level: Literal["debug", "info", "warning", "error"] = field(
        default="info", metadata=choice("debug", "info", "warning", "error")
    )
    format: Literal["text", "json"] = field(default="text", metadata=choice("text", "json"))
    access: bool = field(default=True, metadata=SWITCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsOptions:
    """`aliases` adds the metric names that dashboards for other exporters read."""

    aliases: bool = field(default=False, metadata=SWITCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookOptions:
    """Where alerts are sent, for those without Prometheus; without a `url` or a `url_file` nowhere.

    The whole URL is a secret; the file is read whenever something is sent. What still stands is told again every
    `repeat` seconds, 0 for once; alerts with an `ignore`d name are not sent.
    """

    url: Secret | None = field(default=None, metadata=HOOK)
    url_file: Path | None = field(default=None, metadata=PATH)
    format: Literal["json", "slack"] = field(default="json", metadata=choice("json", "slack"))
    repeat: float = field(default=4 * 3600.0, metadata=DURATION)
    ignore: tuple[str, ...] = field(default=(), metadata=ALERTS)

    @property
    def enabled(self) -> bool:
        """Whether anything is sent."""
        return self.url is not None or self.url_file is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaOptions:
    """What is done as a pull quota runs out, where upstream tells one.

    When nothing was heard of it for `probe` seconds it is asked for, with a request that is not counted; 0 is never. At
    `careful` and `tight` tags are answered for longer without asking, and changed tags with what is held; the `reserve`
    is for repositories that match `important`. What may not be pulled waits for `wait` seconds, and is refused then.
    `governor` switches all of that off, but not the probe.
    """

    probe: float = field(default=300.0, metadata=DURATION)
    governor: bool = field(default=True, metadata=SWITCH)
    careful: Share = field(default=Share(30, percent=True), metadata=PERCENT)
    tight: Share = field(default=Share(10, percent=True), metadata=PERCENT)
    reserve: Share = field(default=Share(5, percent=True), metadata=PERCENT)
    important: tuple[str, ...] = field(default=(), metadata=PATTERNS)
    unimportant: tuple[str, ...] = field(default=(), metadata=PATTERNS)
    wait: float = field(default=10.0, metadata=DURATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamOptions:
    """A registry that we ask. `password` comes from the environment only; `password_file` is read when it is needed.

    `tags` overrules `freshness.tags`; `ca` is a file of certificates to trust besides the system's; `insecure` does not
    verify certificates; `proxy` overrules the environment's; `requests` is how many questions (manifests, lists,
    tokens) are asked and `transfers` how many blobs are fetched at a time, 0 for no limit; `connections` is how many of
    those one large blob may take where one is slow, 1 for never more; `fallbacks` are names of other upstreams, asked
    when this one is down or limited.
    """

    name: str = field(default=DOCKER_HUB, metadata=NAME)
    url: str = field(default=DOCKER_HUB_URL, metadata=URL)
    username: str | None = field(default=None, metadata=TEXT)
    password: Secret | None = field(default=None, metadata=SECRET)
    password_file: Path | None = field(default=None, metadata=PATH)
    tags: float | None = field(default=None, metadata=DURATION)
    ca: Path | None = field(default=None, metadata=PATH)
    insecure: bool = field(default=False, metadata=SWITCH)
    proxy: str | None = field(default=None, metadata=PROXY)
    requests: int = field(default=64, metadata=COUNT)
    transfers: int = field(default=0, metadata=COUNT)
    connections: int = field(default=4, metadata=SOME)
    fallbacks: tuple[str, ...] = field(default=(), metadata=NAMES)
    connect_timeout: float = field(default=10.0, metadata=POSITIVE_DURATION)
    idle_timeout: float = field(default=60.0, metadata=POSITIVE_DURATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings. The first upstream is the one that is asked when a request names none."""

    server: ServerOptions = field(default_factory=ServerOptions)
    admin: AdminOptions = field(default_factory=AdminOptions)
    cache: CacheOptions = field(default_factory=CacheOptions)
    freshness: FreshnessOptions = field(default_factory=FreshnessOptions)
    access: AccessOptions = field(default_factory=AccessOptions)
    quota: QuotaOptions = field(default_factory=QuotaOptions)
    log: LogOptions = field(default_factory=LogOptions)
    metrics: MetricsOptions = field(default_factory=MetricsOptions)
    webhook: WebhookOptions = field(default_factory=WebhookOptions)
    upstreams: tuple[UpstreamOptions, ...] = (UpstreamOptions(),)


SECTIONS: Final[Mapping[str, type[Any]]] = {
    "server": ServerOptions,
    "admin": AdminOptions,
    "cache": CacheOptions,
    "freshness": FreshnessOptions,
    "access": AccessOptions,
    "quota": QuotaOptions,
    "log": LogOptions,
    "metrics": MetricsOptions,
    "webhook": WebhookOptions,
}


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


def check_files(config: Config) -> None:
    """That every password_file, ca and url_file can be read now and holds something, and that the certificate and key
    of the listener can be used. Raises ConfigError."""
    if config.server.tls_certificate is not None and config.server.tls_key is not None:
        try:
            server_context(config.server.tls_certificate, config.server.tls_key)
        except CertificateError as cause:
            raise ConfigError(f"server.tls_certificate and server.tls_key: {cause}") from cause
    for options in config.upstreams:
        for key, path in (("password_file", options.password_file), ("ca", options.ca)):
            if path is not None:
                _check_file(f"{key} of upstream {options.name}", path)
    if config.webhook.url_file is not None:
        content = _check_file("webhook.url_file", config.webhook.url_file)
        HOOK[KEY].read(
            Given(f"what {config.webhook.url_file} (webhook.url_file) holds", content.decode(errors="replace"))
        )


def _check_file(setting: str, path: Path) -> bytes:
    """What it holds. Raises ConfigError."""
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise ConfigError(f"cannot read {setting}: {cause.strerror}: {path}") from cause
    if not content.strip():
        raise ConfigError(f"{setting} is empty: {path}")
    return content


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
