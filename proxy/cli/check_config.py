"""`pullthrough check-config`: say what the configuration means, or what is wrong with it."""

from __future__ import annotations

import argparse
import json

from proxy.cli.options import Commands, add_command, load_config
from proxy.config import HIDDEN, Plain, check_files, describe

Described = list[tuple[str, dict[str, Plain]]]


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "check-config", run, "Print every setting as it was understood, without secrets.")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the settings as TOML, or as JSON."""
    config = load_config(arguments)
    check_files(config)
    described = describe(config)
    print(json.dumps(_document(described), indent=2) if arguments.json else _toml(described))
    return 0


def _document(described: Described) -> dict[str, object]:
    document: dict[str, object] = {name: table for name, table in described if name != "upstream"}
    return document | {"upstream": [table for name, table in described if name == "upstream"]}


def _toml(described: Described) -> str:
    sections = []
    for name, table in described:
        lines = ["[[upstream]]" if name == "upstream" else f"[{name}]"]
        # A JSON string, number or boolean is a TOML one too.
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items() if value != HIDDEN]
        if "password" in table:
            lines.append("# password: given by the environment")
        if table.get("url") == HIDDEN:
            lines.append("# url: given, and not shown")
        sections.append("\n".join(lines))
    return "\n\n".join(sections)
