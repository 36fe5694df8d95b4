"""`pullthrough show IMAGE`: all that is known of a repository, or of one image."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from proxy.cli.asking import add_json, print_json, run_asking, width
from proxy.cli.options import Commands, add_command

if TYPE_CHECKING:
    from proxy.cli.admin_client import Admin


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "show", run, "Show a repository and its tags, or an image and its parts.")
    parser.add_argument("image", metavar="IMAGE", help="NAME for all of it, NAME:TAG or NAME@DIGEST for one image")
    parser.add_argument("--no-trunc", action="store_true", help="whole digests")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask, and show it."""
    return run_asking(arguments, lambda admin: _run(arguments, admin))


def _run(arguments: argparse.Namespace, admin: Admin) -> int:
    from proxy.cli.show_text import image_text, repository_text

    document = _whole(admin, f"images/{arguments.image}")
    if arguments.json:
        print_json(document)
        return 0
    text = image_text if "image" in document else repository_text
    for line in text(document, whole=arguments.no_trunc, width=width()):
        print(line)
    return 0


def _whole(admin: Admin, path: str) -> dict[str, Any]:
    """All pages as one."""
    whole: dict[str, Any] = {}
    for page in admin.pages(path):
        if whole:
            page["tags"] = whole["tags"] + page["tags"]
            page["untagged"] = whole["untagged"]
        whole = page
    whole.pop("next", None)
    return whole
