"""What `serve` says before it starts: where everything is, and what to tell the clients."""

from __future__ import annotations

import json

from proxy import __version__
from proxy.config import Address, Config, ServerOptions, UpstreamOptions
from proxy.oci.names import DOCKER_HUB

_ANY = frozenset({"", "0.0.0.0", "::"})


def banner(config: Config, hostname: str, *, activated: bool = False) -> str:
    """Lines for a person who has just started this on a machine of this name; `activated` by passed sockets."""
    lines = [
        f"pullthrough {__version__}",
        "",
        f"  clients    {'by the socket of the service manager' if activated else f'{config.server.scheme}://{config.server.listen}'}",
        f"  cache      {config.cache.directory}",
        *(f"  upstream   {_upstream(options)}" for options in config.upstreams),
        *_admin(config.admin.listen),
        "",
    ]
    if not activated and any(options.name == DOCKER_HUB for options in config.upstreams):
        lines += [*_daemon_json(config.server, hostname), ""]
    return "\n".join(lines)


def _upstream(options: UpstreamOptions) -> str:
    if options.username is not None:
        return f"{options.name} ({options.url}) as {options.username}"
    hint = "; DOCKERHUB_USERNAME and DOCKERHUB_TOKEN raise the limit" if options.name == DOCKER_HUB else ""
    return f"{options.name} ({options.url}) anonymously{hint}"


def _admin(listen: Address) -> list[str]:
    if listen.port == 0:
        return ["  metrics    on a free port; the log names it"]
    url = f"http://{_reachable(listen, '127.0.0.1')}"
    return [f"  metrics    {url}/metrics", f"  status     {url}/api/status, or: pullthrough status"]


def _daemon_json(server: ServerOptions, hostname: str) -> list[str]:
    scheme, listen = server.scheme, server.listen
    here = "127.0.0.1" if scheme == "http" else hostname  # A certificate is for a name.
    if listen.port == 0:
        return ["  The port for clients is a free one; the log names it."]
    lines = [
        "  For dockerd on this machine, put this into /etc/docker/daemon.json and restart it:",
        "",
        "      " + json.dumps({"registry-mirrors": [f"{scheme}://{_reachable(listen, here)}"]}),
    ]
    if listen.host in _ANY:
        lines += ["", f"  On other machines the same with {scheme}://{_reachable(listen, hostname)}"]
    if scheme == "https":
        lines += ["", "  If the certificate is of an authority of your own: pullthrough setup dockerd"]
    return lines


def _reachable(listen: Address, host: str) -> Address:
    """The address to ask; `host` stands for every interface."""
    return Address(host, listen.port) if listen.host in _ANY else listen
