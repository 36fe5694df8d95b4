"""The rivals: how each server is configured and started. A further one is one more function and one more entry.

All are set up as an operator would who reads the manual: one process, one access log line a request, a cache on disk,
a tag fresh for an hour where the server can do that.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.certificate import Pair, trusting_anybody
from bench.nginx import nginx_command
from bench.processes import free_port, program, running

HOUSE = Path(__file__).resolve().parent.parent  # where `python -m proxy` is found


@dataclass(frozen=True, slots=True)
class Site:
    """Where a rival runs: its own empty folder, the port it listens on, the upstream it asks; `pair` if over TLS."""

    directory: Path
    port: int
    upstream: str
    pair: Pair | None = None


@dataclass(frozen=True, slots=True)
class Rival:
    """A cache to be measured; `command` writes its configuration and returns how to run it."""

    name: str
    command: Callable[[Site], list[str]]


@dataclass(frozen=True, slots=True)
class Server:
    """A running rival."""

    port: int
    pid: int


@contextmanager
def serving(rival: Rival, parent: Path, upstream: str, pair: Pair | None = None) -> Iterator[Server]:
    """Run a rival with an empty cache below `parent` until the block ends, then remove what it stored."""
    tls = None if pair is None else trusting_anybody()
    with tempfile.TemporaryDirectory(prefix=f"{rival.name}-", dir=parent) as directory:
        site = Site(Path(directory), free_port(), upstream, pair)
        # What another server left to be written to disk must not be written at this one's expense.
        os.sync()
        log = site.directory / "output.log"
        with running(rival.command(site), port=site.port, log=log, cwd=HOUSE, tls=tls) as pid:
            yield Server(site.port, pid)


def pullthrough(site: Site, *, workers: int = 1) -> list[str]:
    """Ourselves, in this interpreter."""
    config = site.directory / "pullthrough.toml"
    tls = f'tls_certificate = "{site.pair.certificate}"\ntls_key = "{site.pair.key}"\n' if site.pair else ""
    several = f"workers = {workers}\n" if workers > 1 else ""
    config.write_text(
        f"""\
[server]
listen = "127.0.0.1:{site.port}"
{several}{tls}[admin]
listen = "127.0.0.1:{free_port()}"
[cache]
directory = {json.dumps(str(site.directory / "cache"))}
[freshness]
tags = "1h"
[[upstream]]
name = "docker.io"
url = "{site.upstream}"
"""
    )
    return [sys.executable, "-m", "proxy", "serve", "--config", str(config)]


def nginx(site: Site) -> list[str]:
    """The yardstick: `proxy_cache` with a lock, which verifies nothing."""
    tls = f"ssl_certificate {site.pair.certificate}; ssl_certificate_key {site.pair.key};" if site.pair else ""
    return nginx_command(
        site.directory,
        f"""\
    access_log {site.directory}/access.log combined buffer=64k flush=1s;
    proxy_cache_path {site.directory}/cache levels=2 keys_zone=v2:16m max_size=64g inactive=1d use_temp_path=off;
    upstream hub {{ server {site.upstream.removeprefix("http://")}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{site.port}{" ssl" if tls else ""} backlog=4096;
        {tls} ssl_protocols TLSv1.2 TLSv1.3;
        location /v2/ {{
            proxy_pass http://hub;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering on; proxy_buffer_size 64k; proxy_buffers 16 64k;
            proxy_cache v2;
            proxy_cache_key $uri;
            proxy_cache_valid 200 1h;
            proxy_cache_lock on; proxy_cache_lock_age 1h; proxy_cache_lock_timeout 1h;
        }}
    }}""",
    )


def docker_registry(site: Site) -> list[str]:
    """Distribution's registry in proxy mode; it asks upstream about a tag each time."""
    config = site.directory / "config.yml"
    settings = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(site.directory / "cache"), "maxthreads": 100},
            "cache": {"blobdescriptor": "inmemory"},
        },
        "http": {"addr": f"127.0.0.1:{site.port}", "tls": _tls(site)},
        "proxy": {"remoteurl": site.upstream},
    }
    config.write_text(json.dumps(settings))  # YAML holds JSON
    return [program("docker-registry"), "serve", str(config)]


def _tls(site: Site) -> dict[str, str]:
    return {"certificate": str(site.pair.certificate), "key": str(site.pair.key)} if site.pair else {}


OURS = Rival("pullthrough", pullthrough)
TWO_WORKERS = Rival("pullthrough-2", partial(pullthrough, workers=2))
NGINX = Rival("nginx", nginx)
DOCKER_REGISTRY = Rival("docker-registry", docker_registry)
RIVALS = (OURS, TWO_WORKERS, NGINX, DOCKER_REGISTRY)


def pairs(rivals: Sequence[Rival]) -> list[tuple[str, str]]:
    """Return who is compared with whom: the first with the others, but two workers of ours with one."""
    ours, *others = rivals
    return [(each.name, ours.name) if each is TWO_WORKERS else (ours.name, each.name) for each in others]
