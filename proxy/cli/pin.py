"""`pullthrough pin` and `unpin`: repositories that are never evicted."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from proxy.cli.asking import add_json, print_json, run_asking
from proxy.cli.options import Commands, add_command

if TYPE_CHECKING:
    from proxy.cli.admin_client import Admin


def add(commands: Commands) -> None:
    """Declare both commands."""
    pin = add_command(commands, "pin", run_pin, "Keep all that is stored of a repository, whatever room is needed.")
    unpin = add_command(commands, "unpin", run_unpin, "Let a repository be evicted again like everything else.")
    for parser in (pin, unpin):
        parser.add_argument("repository", metavar="REPOSITORY", help="such as alpine or ghcr.io/owner/app")
        add_json(parser)


def run_pin(arguments: argparse.Namespace) -> int:
    """Pin it."""
    return run_asking(arguments, lambda admin: _pin(arguments, admin))


def run_unpin(arguments: argparse.Namespace) -> int:
    """Unpin it."""
    return run_asking(arguments, lambda admin: _unpin(arguments, admin))


def _pin(arguments: argparse.Namespace, admin: Admin) -> int:
    from proxy.cli.text import count, printable
    from proxy.units import format_size

    document = admin.ask("PUT", f"pins/{arguments.repository}")
    if arguments.json:
        print_json(document)
        return 0
    held = (
        f"{count(document['blobs'], 'blob')}, {format_size(document['bytes'])}" if document["blobs"] else "nothing yet"
    )
    print(f"{printable(document['repository'])} is pinned. Stored of it: {held}; none of it is evicted.")
    return 0


def _unpin(arguments: argparse.Namespace, admin: Admin) -> int:
    from proxy.cli.text import printable

    document = admin.ask("DELETE", f"pins/{arguments.repository}")
    if arguments.json:
        print_json(document)
    else:
        print(f"{printable(document['repository'])} is not pinned any more.")
    return 0
