"""`pullthrough setup CLIENT`: what a client needs to pull through this cache; `--write` puts it there."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.cli.options import Commands, add_command, load_config
from proxy.config import Address, ServerOptions

if TYPE_CHECKING:
    from proxy.setup import Setup
    from proxy.setup.write import Written

_EXIT_USAGE = 2
_ANY = frozenset({"", "0.0.0.0", "::"})
_EXAMPLE = "http://cache:5000"


class _UsageError(Exception):
    """The options do not go together, or the client has no file here."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "setup", run, "Show how a client is set up to pull through this cache.")
    parser.add_argument("client", metavar="CLIENT", nargs="?", help="which one; without it, the known ones are listed")
    parser.add_argument(
        "--url", help=f"the cache as the client reaches it, such as {_EXAMPLE} (default: server.listen)"
    )
    parser.add_argument("--write", action="store_true", help="put it in place on this machine, with backups")
    parser.add_argument(
        "--force", action="store_true", help="with --write: replace files that pullthrough did not make"
    )
    parser.add_argument("--root", metavar="DIR", type=Path, help="with --write: write below this folder instead of /")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """List the clients, show what one needs, or put it in place."""
    from proxy.setup import BadCacheUrl, SetupError, UnknownClient

    try:
        _check_options(arguments)
        return _run(arguments)
    except (_UsageError, UnknownClient, BadCacheUrl) as error:
        print(f"pullthrough: {error}", file=sys.stderr)
        return _EXIT_USAGE
    except SetupError as error:
        print(f"pullthrough: {error}", file=sys.stderr)
        return 1


def _check_options(arguments: argparse.Namespace) -> None:
    if arguments.write and arguments.client is None:
        raise _UsageError("--write needs a client; `pullthrough setup` lists them")
    if not arguments.write and (arguments.force or arguments.root is not None):
        raise _UsageError("--force and --root are for --write")


def _run(arguments: argparse.Namespace) -> int:
    from proxy.setup import as_text

    if arguments.client is None:
        print(_clients(as_json=arguments.json), end="")
        return 0
    setup = _make(arguments)
    if arguments.write:
        return _write(setup, arguments)
    print(json.dumps(_document(setup), indent=2) + "\n" if arguments.json else as_text(setup), end="")
    if setup.can_be_written and not arguments.json:
        print(f"\n`pullthrough setup {setup.client} --write` puts this in place on this machine.")
    return 0


def _clients(*, as_json: bool) -> str:
    from proxy.setup import CLIENTS, clients_text

    if not as_json:
        return clients_text()
    return json.dumps({"clients": {client.name: client.summary for client in CLIENTS.values()}}, indent=2) + "\n"


def _make(arguments: argparse.Namespace) -> Setup:
    from proxy.setup import make_setup

    config = load_config(arguments)
    is_here = arguments.write and config.server.scheme == "http"  # A certificate is for a name.
    url = arguments.url or _url(config.server, "127.0.0.1" if is_here else socket.gethostname())
    return make_setup(arguments.client, url, [options.name for options in config.upstreams])


def _url(server: ServerOptions, host: str) -> str:
    """`host` stands for every interface."""
    listen = server.listen
    if listen.port == 0:
        raise _UsageError(f"server.listen has port 0, so the port cannot be known; give --url, such as {_EXAMPLE}")
    return f"{server.scheme}://{Address(host, listen.port) if listen.host in _ANY else listen}"


def _write(setup: Setup, arguments: argparse.Namespace) -> int:
    from proxy.setup.write import install

    if not setup.can_be_written:
        raise _UsageError(f"{setup.client} has nothing to write on this machine; without --write, it is shown")
    written = install(setup, arguments.root or Path("/"), force=arguments.force)
    if arguments.json:
        print(json.dumps(_document(setup) | {"written": [_written(each) for each in written]}, indent=2))
    else:
        _tell(setup, written)
    return 0


def _tell(setup: Setup, written: list[Written]) -> None:
    for each in written:
        kept = f" (the old one is {each.backup})" if each.backup is not None else ""
        print(f"wrote {each.path}{kept}" if each.changed else f"already so: {each.path}")
    if setup.restart is not None and any(each.changed for each in written):
        print(f"Then:   {setup.restart}")
    print(f"Check:  {setup.check}")
    for note in setup.notes:
        print(f"Note:   {note}")


def _document(setup: Setup) -> dict[str, object]:
    return {
        "client": setup.client,
        "url": setup.url,
        "files": [{"path": part.path, "content": part.content, "about": part.about} for part in setup.parts],
        "restart": setup.restart,
        "check": setup.check,
        "notes": list(setup.notes),
    }


def _written(written: Written) -> dict[str, object]:
    return {
        "path": str(written.path),
        "changed": written.changed,
        "backup": None if written.backup is None else str(written.backup),
    }
