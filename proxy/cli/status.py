"""`pullthrough status`: quota, hits, cache size and running fills of the running process."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from proxy.cli.options import Commands, add_command, load_config

_TIMEOUT_SECONDS = 5.0


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "status", run, "Show quota, hits, cache size and running fills.")
    parser.add_argument("--json", action="store_true", help="the document of /api/status as it is")


def run(arguments: argparse.Namespace) -> int:
    """Ask /api/status and show it."""
    from proxy.cli.admin_client import AdminUnreachable, get
    from proxy.cli.status_text import status_text

    config = load_config(arguments)
    try:
        code, body = get(config.admin.listen, "/api/status", _TIMEOUT_SECONDS)
    except AdminUnreachable as error:
        print(f"pullthrough: {error}", file=sys.stderr)
        return 1
    try:
        document: dict[str, Any] = json.loads(body)
        shown = json.dumps(document, indent=2) if arguments.json else status_text(document, bars=sys.stdout.isatty())
    except (ValueError, KeyError, TypeError, AttributeError):
        print(f"pullthrough: {config.admin.listen} answered {code}, and not with a status document", file=sys.stderr)
        return 1
    print(shown)
    return 0
