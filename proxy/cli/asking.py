"""What the commands that ask the running process have in common."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.cli.options import load_config

if TYPE_CHECKING:
    from proxy.cli.admin_client import Admin

EXIT_USAGE: Final = 2

_BAD_REQUEST: Final = 400


def run_asking(arguments: argparse.Namespace, work: Callable[[Admin], int]) -> int:
    """The exit code of `work`, or of not being able to do it, which is said."""
    from proxy.cli.admin_client import Admin, AdminRefused, AdminUnreachable

    config = load_config(arguments)
    try:
        return work(Admin(config.admin.listen))
    except AdminUnreachable as error:
        print(f"pullthrough: {error}", file=sys.stderr)
        return 1
    except AdminRefused as error:
        print(f"pullthrough: {error}", file=sys.stderr)
        return EXIT_USAGE if error.status == _BAD_REQUEST else 1
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        shown = f"{type(error).__name__}: {error}"
        print(f"pullthrough: {config.admin.listen} did not answer as expected ({shown}); is it older?", file=sys.stderr)
        return 1


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare `--json`."""
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def print_json(document: object) -> None:
    """For scripts."""
    print(json.dumps(document, indent=2))


def width() -> int:
    """Cells of the terminal; 0, without a bound, for anything else."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
