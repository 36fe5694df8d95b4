"""Every setting, its default, and how it is read.

options.py              the settings, and their defaults
loading.py, sources.py  from a TOML file and the environment
values.py               what one value may be
files.py                the files that settings name

What cannot be used - an unknown key, a bad value, half a pair of credentials - is a ConfigError at the start, never a
surprise later. Secrets come from a file or the environment, are held as `Secret`, and have no way into a log.
"""

from __future__ import annotations

from proxy.config.files import check_files
from proxy.config.loading import describe, load
from proxy.config.options import (
    SECTIONS,
    AccessOptions,
    AdminOptions,
    CacheOptions,
    Config,
    FreshnessOptions,
    LogOptions,
    MetricsOptions,
    QuotaOptions,
    ServerOptions,
    UpstreamOptions,
    WebhookOptions,
)
from proxy.config.sources import ConfigError
from proxy.config.values import HIDDEN, Address, Plain, Secret, parse_hook
from proxy.units import Share

__all__ = [
    "HIDDEN",
    "SECTIONS",
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
