"""The command line. One file a command; each imports what it needs when it runs, so that all of them start fast.

Exit codes: 0 it worked, 1 it failed, 2 the command line or the configuration is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from proxy import __version__
from proxy.cli import (
    check_config,
    doctor,
    explain,
    gc,
    healthcheck,
    history,
    ls,
    pin,
    purge,
    scrub,
    serve,
    setup,
    show,
    status,
    top,
    webhook,
)
from proxy.config import ConfigError

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
"""As a shell says it of what SIGINT has ended."""

_HOUSEKEEPING = (ls, show, history, pin, purge, gc, scrub)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()  # Here, since at the end of the program nobody could catch what happens.
    except ConfigError as error:
        print(f"pullthrough: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        _let_go_of_stdout()
        return 1
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _let_go_of_stdout() -> None:
    """Whoever read what we print has left, as `head` does: what is left to write goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pullthrough",
        description="A pull-through cache for container registries.",
        epilog="No configuration is needed: `pullthrough serve` alone is a mirror of Docker Hub.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pullthrough {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in (serve, check_config, healthcheck, status, top, explain, doctor, setup, webhook, *_HOUSEKEEPING):
        command.add(commands)
    return parser
