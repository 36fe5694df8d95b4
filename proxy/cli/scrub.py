"""`pullthrough scrub`: read and hash everything that is stored, now."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from proxy.cli.asking import add_json, print_json, run_asking
from proxy.cli.options import Commands, add_command

if TYPE_CHECKING:
    from proxy.cli.admin_client import Admin

POLL_SECONDS: Final = 0.5
LINE_SECONDS: Final = 10.0
"""How often a line is written where there is no terminal."""

_CLEAR: Final = "\r\x1b[K"

Document = dict[str, Any]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "scrub", run, "Verify everything that is stored now, and watch; what is bad is set aside."
    )
    parser.add_argument(
        "--rate", metavar="SIZE", type=_rate, help="so much a second at most, such as 20MiB (default: all it can)"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--status", action="store_true", help="show how the scrub is, and begin none")
    instead.add_argument("--cancel", action="store_true", help="end the scrub that runs")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Begin a scrub and follow it; or only ask for it, or end it."""
    return run_asking(arguments, lambda admin: _run(arguments, admin))


def _run(arguments: argparse.Namespace, admin: Admin) -> int:
    from proxy.cli.scrub_text import status_text

    if arguments.status or arguments.cancel:
        document = admin.ask("GET" if arguments.status else "DELETE", "scrub")
    else:
        begun = admin.ask("POST", "scrub", {"rate": arguments.rate})
        try:
            document = _follow(admin, begun, quiet=arguments.json)
        except KeyboardInterrupt:
            print(
                "\nThe scrub goes on. `pullthrough scrub --status` shows how far it is, --cancel ends it.",
                file=sys.stderr,
            )
            return 1
    if arguments.json:
        print_json(document)
    else:
        print(status_text(document))
    return 1 if document["bad"] or document["missing"] else 0


def _follow(admin: Admin, begun: Document, *, quiet: bool) -> Document:
    """The document of its end."""
    from proxy.cli.scrub_text import progress_line

    terminal = sys.stdout.isatty() and not quiet
    told_at = time.monotonic()
    document = begun
    while document["running"] and document["started_at"] == begun["started_at"]:
        if terminal:
            print(f"{_CLEAR}{progress_line(document, bars=True)}", end="", flush=True)
        elif not quiet and time.monotonic() - told_at >= LINE_SECONDS:
            told_at = time.monotonic()
            print(progress_line(document, bars=False), flush=True)
        time.sleep(POLL_SECONDS)
        document = admin.ask("GET", "scrub")
    if terminal:
        print(_CLEAR, end="", flush=True)
    return document


def _rate(text: str) -> int:
    from proxy.units import parse_size

    try:
        rate = parse_size(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 20MiB") from None
    if rate <= 0:
        raise argparse.ArgumentTypeError("a rate is more than nothing")
    return rate
