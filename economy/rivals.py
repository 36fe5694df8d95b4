"""The caches: how each is configured for a day that passes faster.

Whatever a configuration says in minutes or days is divided by the pace; nginx counts in whole seconds, so that its
shortest time is one second. Debian's docker-registry has no time shorter than its seven days. Our cache has its
configuration as it stands, and the clock of the day.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import rivals as speed
from bench.nginx import nginx_command
from economy.pace import HOUR, MINUTE, Pace
from proxy.config import QuotaOptions

DAYS: Final = 24 * HOUR
WAIT_SECONDS: Final = QuotaOptions().wait


@dataclass(frozen=True, slots=True)
class Site:
    """Where a rival runs: an empty folder, ports to listen on, the upstream to ask, and how fast the day passes."""

    directory: Path
    port: int
    admin: int
    """For our own figures."""
    upstream: str
    pace: Pace


@dataclass(frozen=True, slots=True)
class Rival:
    """A cache, or none; `command` writes its configuration and returns how to run it.

    `only`: its clients know no other way, as where images are named `cache:5000/library/alpine`.
    """

    name: str
    command: Callable[[Site], Sequence[str]] | None
    only: bool = False
    ours: bool = False


def pullthrough(name: str, quota: str = "", *, only: bool = False) -> Rival:
    """Ourselves, with these lines below [quota], and otherwise as it comes.

    How long a pull waits in the queue passes on the wall, whatever the cache's clock says, so that it is divided too.
    """

    def command(site: Site) -> Sequence[str]:
        config = site.directory / "pullthrough.toml"
        config.write_text(
            f"""\
[server]
listen = "127.0.0.1:{site.port}"
[admin]
listen = "127.0.0.1:{site.admin}"
[cache]
directory = {json.dumps(str(site.directory / "cache"))}
scrub_rate = "0B"
[log]
access = false
[quota]
wait = "{WAIT_SECONDS / site.pace.factor:.3f}s"
{quota}
[[upstream]]
name = "docker.io"
url = "{site.upstream}"
"""
        )
        return sys.executable, "-m", "economy.cache", str(site.pace.factor), str(site.pace.began), str(config)

    return Rival(name, command, only, ours=True)


def _nginx(site: Site) -> Sequence[str]:
    """As the configuration of rpardini/docker-registry-proxy has it, with ENABLE_MANIFEST_CACHE=true and its defaults.

    Tags with three digits or dots are kept for 60 days, `stable`, `nightly`, `production` and `test` for ten minutes,
    others for an hour, and then revalidated with a conditional GET. A blob is asked for each time at the registry, and
    what that redirects to is kept. As a cache of HTTP that can be pointed to, instead of one that opens up TLS.
    """
    kept = f"{_seconds(60 * DAYS, site.pace)}s"
    tiers = (
        (r"sha256:", f"200 206 {kept}"),
        (r"(stable|nightly|production|test)", f"{_seconds(10 * MINUTE, site.pace)}s"),
        (r"(.*)(\d|\.)+(.*)(\d|\.)+(.*)(\d|\.)+", kept),
        (r"", f"{_seconds(HOUR, site.pace)}s"),
    )
    common = f"""
            proxy_pass {site.upstream};
            proxy_cache v2;
            proxy_cache_use_stale error timeout http_500 http_502 http_504 http_429;
            proxy_intercept_errors on;
            error_page 301 302 307 = @redirected;"""
    manifests = "".join(
        f"""
        location ~ ^/v2/(.*)/manifests/{pattern} {{
            proxy_cache_key $uri;
            proxy_cache_valid {valid};{common}
        }}"""
        for pattern, valid in tiers
    )
    return nginx_command(
        site.directory,
        f"""\
    access_log off;
    proxy_cache_path {site.directory}/cache levels=1:2 keys_zone=v2:10m max_size=32g inactive=60d use_temp_path=off;
    server {{
        listen 127.0.0.1:{site.port} backlog=4096;
        proxy_cache_lock on; proxy_cache_lock_timeout 880s;
        proxy_cache_valid 200 206 {kept};
        proxy_cache_revalidate on;
        proxy_force_ranges on;
        proxy_ignore_client_abort on;
        proxy_ignore_headers X-Accel-Expires Expires Cache-Control Set-Cookie;
        location ~ ^/v2/(.*)/blobs/sha256:(.*) {{
            proxy_cache_key $2;{common}
        }}{manifests}
        location @redirected {{
            set $wanted $uri;
            set $location $upstream_http_location;
            proxy_set_header Authorization "";
            proxy_pass $location;
            proxy_cache v2;
            proxy_cache_key $wanted;
        }}
        location / {{ proxy_pass {site.upstream}; }}
    }}""",
    )


def _docker_registry(site: Site) -> Sequence[str]:
    """Distribution's registry in proxy mode, as in the benchmark of speed."""
    return speed.docker_registry(speed.Site(site.directory, site.port, site.upstream))


NO_CACHE: Final = Rival("no cache", None)
NGINX: Final = Rival("nginx", _nginx)
DOCKER_REGISTRY: Final = Rival("docker-registry", _docker_registry)
OURS: Final = pullthrough("pullthrough")

DAY: Final = (NO_CACHE, NGINX, DOCKER_REGISTRY, OURS)

IMPORTANT: Final = "acme/deploy-"
UNIMPORTANT: Final = "nightly/"
_PRIORITIES: Final = f'important = ["{IMPORTANT}*"]\nunimportant = ["{UNIMPORTANT}*"]'
GOVERNED: Final = pullthrough("governor", _PRIORITIES)
UNGOVERNED: Final = pullthrough("no governor", "governor = false")
GOVERNED_ONLY: Final = pullthrough("governor, no way around", _PRIORITIES, only=True)
UNGOVERNED_ONLY: Final = pullthrough("no governor, no way around", "governor = false", only=True)
HALF: Final = (GOVERNED, UNGOVERNED, GOVERNED_ONLY, UNGOVERNED_ONLY)


def _seconds(moment: float, pace: Pace) -> int:
    return max(1, round(moment / pace.factor))
