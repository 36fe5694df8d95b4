"""`pullthrough serve`: run the cache."""

from __future__ import annotations

import argparse
import socket
import sys

from proxy.cli.options import Commands, add_command, load_config
from proxy.config import check_files


def add(commands: Commands) -> None:
    """Declare the command."""
    add_command(commands, "serve", run, "Run the cache until SIGTERM or SIGINT.")


def run(arguments: argparse.Namespace) -> int:
    """Greet, then serve."""
    from proxy.app import StartError
    from proxy.app.service import run as run_app
    from proxy.cli.banner import banner

    config = load_config(arguments)
    check_files(config)
    if config.log.format == "text" or sys.stderr.isatty():
        print(banner(config, socket.gethostname()), file=sys.stderr, flush=True)
    try:
        return run_app(config)
    except StartError as error:
        print(f"pullthrough: {error}", file=sys.stderr)
        return 1
