"""`pullthrough ls`: which repositories are stored."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from proxy.cli.asking import add_json, print_json, run_asking, width
from proxy.cli.options import Commands, add_command

if TYPE_CHECKING:
    from proxy.cli.admin_client import Admin


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "ls", run, "List what is stored: repositories, tags, sizes, last use, pins.")
    parser.add_argument(
        "pattern",
        metavar="PATTERN",
        nargs="?",
        default="",
        help="names that have this in them or, with * ? [..], that match as a whole: 'ghcr.io/*'",
    )
    parser.add_argument(
        "--vanished", action="store_true", help="what upstream does not give any more, and this cache still does"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask page by page, and show each as it comes."""
    return run_asking(arguments, lambda admin: _run(arguments, admin))


def _run(arguments: argparse.Namespace, admin: Admin) -> int:
    from proxy.cli.ls_text import Listing, VanishedListing

    kind = "vanished" if arguments.vanished else "repositories"
    pages = admin.pages(kind, {"match": arguments.pattern} if arguments.pattern else None)
    if arguments.json:
        document: dict[str, object] = {}
        entries: list[object] = []
        for page in pages:
            entries += page.pop(kind)
            document = page
        document.pop("next", None)
        print_json({kind: entries} | document)
        return 0
    text = (VanishedListing if arguments.vanished else Listing)(arguments.pattern, width())
    for page in pages:
        for line in text.lines(page):
            print(line)
    print(text.summary())
    return 0
