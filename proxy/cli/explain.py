"""`pullthrough explain IMAGE`: what a pull of it would do now, what it would cost, and why."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from proxy.cli.asking import add_json, print_json, run_asking
from proxy.cli.options import Commands, add_command
from proxy.cli.text import printable

if TYPE_CHECKING:
    from proxy.cli.admin_client import Admin


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "explain", run, "Say what a pull of an image would do now, and what it would cost.")
    parser.add_argument("image", metavar="IMAGE", help="such as alpine, alpine:3.20 or ghcr.io/owner/app@sha256:...")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask /api/explain and show it."""
    return run_asking(arguments, lambda admin: _show(arguments, admin))


def _show(arguments: argparse.Namespace, admin: Admin) -> int:
    document = admin.ask("GET", f"explain/{arguments.image}")
    if arguments.json:
        print_json(document)
    else:
        for line in document["lines"]:
            print(printable(line))
    return 0
