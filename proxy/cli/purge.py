"""`pullthrough purge`: remove what is stored, before its time."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from proxy.cli.asking import EXIT_USAGE, add_json, print_json, run_asking, width
from proxy.cli.options import Commands, add_command

if TYPE_CHECKING:
    from proxy.cli.admin_client import Admin

Document = dict[str, Any]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "purge", run, "Remove an image, a repository, or what was not used for long.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("image", metavar="IMAGE", nargs="?", help="NAME (its tag latest), NAME:TAG or NAME@DIGEST")
    what.add_argument("--repository", metavar="NAME", help="all of it, and all that is known of it")
    what.add_argument(
        "--older-than",
        metavar="AGE",
        type=_age,
        help="what was not used for so long, such as 30d; nothing that is pinned",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would go, and remove nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Look, ask, remove."""
    if not (arguments.dry_run or arguments.yes or (sys.stdin.isatty() and not arguments.json)):
        print(
            "pullthrough: there is nobody to ask here: give --yes, or --dry-run to see what would go", file=sys.stderr
        )
        return EXIT_USAGE
    return run_asking(arguments, lambda admin: _run(arguments, admin))


def _run(arguments: argparse.Namespace, admin: Admin) -> int:
    from proxy.cli.purge_text import done_text, plan_text

    wanted = _wanted(arguments)
    if not arguments.yes or arguments.dry_run:
        plan = admin.ask("POST", "purge", wanted | {"dry_run": True})
        if arguments.json:
            print_json(plan)
            return 0
        print("\n".join(plan_text(plan, width())))
        if arguments.dry_run:
            return 0
        if not plan["removed"]["blobs"] and not plan["tags"]:
            return 0
        if not _agreed():
            print("Nothing was removed.")
            return 1
    done = _purge(admin, wanted)
    if arguments.json:
        print_json(done)
    else:
        print(done_text(done))
    return 0


def _wanted(arguments: argparse.Namespace) -> Document:
    if arguments.image is not None:
        return {"image": arguments.image}
    if arguments.repository is not None:
        return {"repository": arguments.repository}
    return {"older_than": arguments.older_than}


def _purge(admin: Admin, wanted: Document) -> Document:
    """All steps as one."""
    done = admin.ask("POST", "purge", wanted)
    while not done["complete"]:
        step = admin.ask("POST", "purge", wanted)
        for name in ("removed", "kept", "needed"):
            step[name] = {field: step[name][field] + done[name][field] for field in ("blobs", "bytes")}
        for name in ("tags", "items"):
            step[name] = done[name] + step[name]
        done = step
    return done


def _agreed() -> bool:
    try:
        return input("\nRemove it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _age(text: str) -> float:
    from proxy.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 30d, 12h or 1h30m") from None
