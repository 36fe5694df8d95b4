"""Every setting, and its default, which stands here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from proxy.config.values import (
    ADDRESS,
    ALERTS,
    COUNT,
    DURATION,
    HOOK,
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
    Secret,
    choice,
)
from proxy.oci.names import DOCKER_HUB
from proxy.units import Share

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
