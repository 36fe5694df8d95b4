"""`pullthrough gc`: evict now what has to go, or show what would."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from proxy.cli.asking import add_json, print_json, run_asking, width
from proxy.cli.options import Commands, add_command

if TYPE_CHECKING:
    from proxy.cli.admin_client import Admin


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "gc", run, "Evict what the limits say, now; or show what would go, and why.")
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would go and what would not, with the reasons"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask, and show it."""
    return run_asking(arguments, lambda admin: _run(arguments, admin))


def _run(arguments: argparse.Namespace, admin: Admin) -> int:
    from proxy.cli.gc_text import done_text, plan_text

    document = admin.ask("POST", "gc", {"dry_run": arguments.dry_run})
    if arguments.json:
        print_json(document)
    elif arguments.dry_run:
        print("\n".join(plan_text(document, width())))
    else:
        print(done_text(document))
    return 0
