"""`pullthrough serve`: run the cache."""

from __future__ import annotations

import argparse
import os
import socket
import sys

from proxy.cli.options import Commands, add_command, load_config
from proxy.config import Config, check_files


def add(commands: Commands) -> None:
    """Declare the command."""
    add_command(commands, "serve", run, "Run the cache until SIGTERM or SIGINT; SIGHUP reads the configuration again.")


def run(arguments: argparse.Namespace) -> int:
    """Greet, then serve."""
    from proxy.app.errors import StartError
    from proxy.app.running import run as run_service
    from proxy.cli.banner import banner

    config = _read(arguments)
    if config.log.format == "text" or sys.stderr.isatty():
        activated = os.environ.get("LISTEN_PID") == str(os.getpid())
        print(banner(config, socket.gethostname(), activated=activated), file=sys.stderr, flush=True)
    try:
        return run_service(config, lambda: _read(arguments))
    except StartError as error:
        print(f"pullthrough: {error}", file=sys.stderr)
        return 1


def _read(arguments: argparse.Namespace) -> Config:
    """The configuration, with files that are there. Raises ConfigError."""
    config = load_config(arguments)
    check_files(config)
    return config
