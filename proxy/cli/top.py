"""`pullthrough top`: which images, clients or kinds of client cost most."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from proxy.cli.asking import add_json, print_json, run_asking
from proxy.cli.options import Commands, add_command
from proxy.cli.text import printable
from proxy.units import format_duration, format_size

if TYPE_CHECKING:
    from proxy.cli.admin_client import Admin

BY: Final = ("image", "client", "agent")
ORDER: Final = ("pulls", "bytes")
_TITLES: Final = {"image": "IMAGE", "client": "CLIENT", "agent": "KIND OF CLIENT"}


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "top", run, "Show which images or clients cost most pulls and bytes.")
    parser.add_argument("--by", choices=BY, default="image", help="what to sum up by (default: image)")
    parser.add_argument("--order", choices=ORDER, default="pulls", help="counted pulls, or bytes sent to clients")
    parser.add_argument("--period", default="24h", help='how far back, such as "90m" or "7d" (default: 24h)')
    parser.add_argument("-n", "--limit", type=int, default=20, help="how many (default: 20)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask /api/top and show it."""
    return run_asking(arguments, lambda admin: _show(arguments, admin))


def _show(arguments: argparse.Namespace, admin: Admin) -> int:
    query = {"by": arguments.by, "order": arguments.order, "period": arguments.period, "limit": arguments.limit}
    document = admin.ask("GET", "top", query=query)
    if arguments.json:
        print_json(document)
    else:
        print(top_text(document))
    return 0


def top_text(document: dict[str, Any]) -> str:
    """The table for people."""
    period = format_duration(document["period_seconds"])
    if not document["rows"]:
        return f"nothing was pulled through this cache in the last {period}"
    lines = [f"{'PULLS':>7}  {'ANSWERS':>8}  {'SENT':>9}  {_TITLES[document['by']]}"]
    lines += [_row(row, printable(row["name"])) for row in document["rows"]]
    lines.append(_row(document["total"], f"in the last {period}, in all"))
    return "\n".join(lines)


def _row(row: dict[str, Any], name: str) -> str:
    return f"{row['pulls']:>7}  {row['answers']:>8}  {format_size(row['bytes']):>9}  {name}"
