"""The command line. One file a command; each imports what it needs when it runs, so that all of them start fast.

Exit codes: 0 it worked, 1 it failed, 2 the command line or the configuration is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from proxy import __version__
from proxy.cli import check_config, doctor, healthcheck, serve, setup, status
from proxy.config import ConfigError

EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    try:
        code: int = arguments.run(arguments)
    except ConfigError as error:
        print(f"pullthrough: {error}", file=sys.stderr)
        return EXIT_USAGE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pullthrough",
        description="A pull-through cache for container registries.",
        epilog="No configuration is needed: `pullthrough serve` alone is a mirror of Docker Hub.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pullthrough {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in (serve, check_config, healthcheck, status, doctor, setup):
        command.add(commands)
    return parser
