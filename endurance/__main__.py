"""`python -m endurance`: the long runs.

    python -m endurance kill-loop     kill -9 at random moments under load, 200 times
    python -m endurance soak          a quarter of an hour of everything at once
    python -m endurance million       a cache of a million blobs

`--short` is what the tests do. Each prints its figures as Markdown and ends with 1 if something failed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from endurance import kill_loop, million, soak
from endurance.errors import EnduranceError
from endurance.report import report

OK, FAILED = 0, 1
Say = Callable[[str], None]
_DESCRIPTION: Final = (__doc__ or "").partition("\n\n")[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of them; 0 all is well, 1 something failed, 2 wrong usage."""
    options = _parser().parse_args(argv)
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begin:5.0f} s {line}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="endurance-", dir=options.directory) as folder:
        code: int = asyncio.run(options.run(Path(folder), options, say))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m endurance", description=_DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="RUN")
    for name, run, help_text, measure in (
        ("kill-loop", _kill_loop, "kill -9 at random moments under load", "kills"),
        ("soak", _soak, "everything at once, for a long time", "seconds"),
        ("million", _million, "a cache of a million entries", "entries"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.set_defaults(run=run)
        command.add_argument("--short", action="store_true", help="what the tests do")
        command.add_argument("--seed", type=int, default=1, help="of all that is random; the machine's timing is not")
        command.add_argument("--directory", type=Path, metavar="DIR", help="where the cache is put for the run")
        command.add_argument(f"--{measure}", type=int, metavar="N", help="so many, instead of those of the form")
    return parser


async def _kill_loop(folder: Path, options: argparse.Namespace, say: Say) -> int:
    form = kill_loop.SHORT if options.short else kill_loop.LONG
    form = replace(form, kills=options.kills or form.kills)
    loop = kill_loop.KillLoop(folder, form, options.seed, say)
    return await _reported(f"{form.kills} times kill -9 (seed {options.seed})", loop.run(), loop.outcome)


async def _soak(folder: Path, options: argparse.Namespace, say: Say) -> int:
    form = soak.SHORT if options.short else soak.LONG
    form = replace(form, seconds=options.seconds or form.seconds)
    run = soak.Soak(folder, form, options.seed, say)
    return await _reported(f"A soak of {form.seconds:.0f} s (seed {options.seed})", run.run(), run.outcome)


async def _million(folder: Path, options: argparse.Namespace, say: Say) -> int:
    form = million.SHORT if options.short else million.LONG
    form = replace(form, entries=options.entries or form.entries)
    run = million.Million(folder, form, options.seed, say)
    return await _reported(f"{form.entries:,} entries", run.run(), run.outcome)


async def _reported(title: str, running: Coroutine[Any, Any, object], outcome: Any) -> int:
    """Run it and print what came of it, also when it could not go on."""
    failures: list[str] = []
    try:
        await running
    except EnduranceError as error:
        failures.append(f"it could not go on: {error}")
    failures += [each for each in outcome.failures if each not in failures]
    print(report(title, outcome.rows(), failures))
    return FAILED if failures else OK


if __name__ == "__main__":
    sys.exit(main())
