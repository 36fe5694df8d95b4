"""`pullthrough doctor`: look at everything between a client and an upstream, and say what to do about what is wrong."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.cli.options import Commands, add_command, load_config

if TYPE_CHECKING:
    from proxy.config import Config
    from proxy.doctor.case import Case
    from proxy.doctor.findings import Result
    from proxy.doctor.image import Image

_EXIT_USAGE: Final = 2
_SUMMARY: Final = "Check configuration, folder, listeners, upstreams, a pull and this machine's clients, step by step."


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "doctor", run, _SUMMARY)
    parser.add_argument("--url", metavar="URL", type=_url, help="the cache to look at (default: from [server] listen)")
    parser.add_argument(
        "--canary",
        metavar="IMAGE",
        help="what to pull through the cache (default: library/hello-world); costs one counted pull, or none if cached",
    )
    parser.add_argument("--no-canary", action="store_true", help="pull nothing: costs nothing")
    parser.add_argument("--no-clients", action="store_true", help="leave the clients of this machine alone")
    parser.add_argument("--root", metavar="DIR", type=Path, default=Path("/"), help="where the clients' /etc is")
    parser.add_argument("--json", action="store_true", help="as one JSON object, at the end")


def run(arguments: argparse.Namespace) -> int:
    """Make every check."""
    import asyncio

    from proxy.oci.errors import RegistryError

    try:
        canary = _canary(arguments)
    except RegistryError as error:
        print(f"pullthrough: --canary {arguments.canary!r} is not an image: {error.message}", file=sys.stderr)
        return _EXIT_USAGE
    return asyncio.run(_run(arguments, canary))


async def _run(arguments: argparse.Namespace, canary: Image | None) -> int:
    from proxy.cli.doctor_text import Lines, document, summary
    from proxy.doctor.configuration import check_configuration
    from proxy.doctor.examination import examine

    lines = Lines(sys.stdout.encoding, colours=_colours(), width=shutil.get_terminal_size().columns)
    results: list[Result] = []

    def tell(result: Result) -> None:
        results.append(result)
        if not arguments.json:
            print(lines.of(result), flush=True)

    source = str(arguments.config or os.environ.get("PULLTHROUGH_CONFIG", "").strip()) or None
    config, first = await check_configuration(partial(load_config, arguments), source)
    tell(first)
    if config is not None:
        async for result in examine(_case(arguments, config, canary)):
            tell(result)
    told = document(results)
    print(json.dumps(told, indent=2) if arguments.json else f"\n{summary(results)}")
    if config is None:
        return _EXIT_USAGE
    return 0 if told["ok"] else 1


def _case(arguments: argparse.Namespace, config: Config, canary: Image | None) -> Case:
    from proxy.clock import SystemClock
    from proxy.doctor.cache import RunningCache
    from proxy.doctor.case import Case

    root: Path = arguments.root
    own_settings = os.geteuid() != 0 and root == Path("/")
    return Case(
        config=config,
        cache=RunningCache(config.server.listen, arguments.url, config.server.scheme),
        clock=SystemClock(),
        canary=canary,
        root=None if arguments.no_clients else root,
        home=Path.home() if own_settings else None,
    )


def _canary(arguments: argparse.Namespace) -> Image | None:
    """Raises RegistryError."""
    from proxy.doctor.image import CANARY, Image

    return None if arguments.no_canary else Image.parse(arguments.canary or CANARY)


def _url(text: str) -> str:
    from proxy.doctor.hosts import Place

    place = Place.parse(text)
    if place is None or not place.scheme or place.path or "@" in text:
        raise argparse.ArgumentTypeError("expected http://host:port or https://host")
    return str(place)


def _colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
