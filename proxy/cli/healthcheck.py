"""`pullthrough healthcheck`: for HEALTHCHECK lines and probes, which have no curl."""

from __future__ import annotations

import argparse
import sys

from proxy.cli.options import Commands, add_command, load_config

_TIMEOUT_SECONDS = 3.0


def add(commands: Commands) -> None:
    """Declare the command."""
    add_command(commands, "healthcheck", run, "Exit with 0 if the running process answers, else with 1.")


def run(arguments: argparse.Namespace) -> int:
    """Ask /healthz."""
    from proxy.cli.admin_client import AdminUnreachable, get

    config = load_config(arguments)
    try:
        status, _ = get(config.admin.listen, "/healthz", _TIMEOUT_SECONDS)
    except AdminUnreachable as error:
        print(f"pullthrough: {error}", file=sys.stderr)
        return 1
    if status != 200:
        print(f"pullthrough: {config.admin.listen} answered /healthz with {status}", file=sys.stderr)
        return 1
    return 0
