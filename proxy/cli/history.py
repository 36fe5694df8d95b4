"""`pullthrough history IMAGE`: what tags were before."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from proxy.cli.asking import add_json, print_json, run_asking, width
from proxy.cli.options import Commands, add_command

if TYPE_CHECKING:
    from proxy.cli.admin_client import Admin


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "history", run, "Show what tags were: each digest, when it was first and last seen.")
    parser.add_argument(
        "image", metavar="IMAGE", help="NAME for all its tags, NAME:TAG for one, NAME@DIGEST for which tags it was"
    )
    parser.add_argument("--no-trunc", action="store_true", help="whole digests")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask page by page, and show each as it comes."""
    return run_asking(arguments, lambda admin: _run(arguments, admin))


def _run(arguments: argparse.Namespace, admin: Admin) -> int:
    from proxy.cli.text import Columns, ago, printable, short
    from proxy.cli.text import at as when

    pages = admin.pages(f"history/{arguments.image}")
    if arguments.json:
        entries, names = [], {}
        for page in pages:
            entries += page["history"]
            names = {name: page[name] for name in ("repository", "name", "now")}
        print_json(names | {"history": entries})
        return 0
    columns = Columns(("TAG", "DIGEST", "FIRST SEEN", "LAST SEEN", "ON DISK", ""), width=width())
    for page in pages:
        now = page["now"]
        rows = [
            (
                printable(each["tag"]),
                printable(each["digest"]) if arguments.no_trunc else short(each["digest"]),
                when(each["first_seen"], now),
                ago(each["last_seen"], now),
                "yes" if each["stored"] else "no",
                "now" if each["current"] else "",
            )
            for each in page["history"]
        ]
        for line in columns.lines(rows):
            print(line)
    return 0
