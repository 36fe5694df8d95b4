"""What the commands have in common: which configuration they run with."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from proxy.config import Config, load

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    """A command that takes `--config`."""
    parser = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="TOML file with settings (default: $PULLTHROUGH_CONFIG, else none)"
    )
    parser.set_defaults(run=run)
    return parser


def load_config(arguments: argparse.Namespace) -> Config:
    """The configuration of this command. Raises ConfigError."""
    named = os.environ.get("PULLTHROUGH_CONFIG", "").strip()
    path: Path | None = arguments.config or (Path(named) if named else None)
    return load(path, os.environ)
