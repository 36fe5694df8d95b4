"""`python -m economy`: replay a CI day with and without caches; a table, and two pictures.

The day passes faster than on the wall. `--short` is what the tests do: a few hours of it, nothing is written.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.errors import MissingProgram
from bench.processes import program
from economy.errors import EconomyError
from economy.page import complaints, page
from economy.plot import draw_economy, draw_half
from economy.replay import replay
from economy.rivals import DAY, HALF
from economy.workload import FULL, SHORT, plan

OK, FAILED, USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Replay the day; 0 done and we are at the limit, 1 something failed, 2 wrong usage or a missing program."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # so that the servers are stopped
    options = _parser().parse_args(argv)
    try:
        for name in ("nginx", "docker-registry"):
            program(name)
        return _run(options)
    except MissingProgram as error:
        print(f"economy: {error}", file=sys.stderr)
        return USAGE
    except EconomyError as error:
        print(f"economy: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m economy", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--short", action="store_true", help="a few hours of the day; nothing is written without --out")
    parser.add_argument("--seed", type=int, default=1, help="of the day; the machine's timing is not by it")
    parser.add_argument("--pace", type=float, metavar="N", help="how many times as fast as on the wall, instead of 600")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results.md and the pictures go")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where caches are put for the run")
    return parser


def _run(options: argparse.Namespace) -> int:
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begin:5.0f} s {line}", file=sys.stderr, flush=True)

    factor = options.pace or (900.0 if options.short else 600.0)
    out: Path | None = options.out or (None if options.short else Path(__file__).parent)
    day = plan(SHORT if options.short else FULL, options.seed)
    limit, half = day.form.limit, day.needed_quota() // 2
    say(f"the day takes {day.seconds / factor:.0f} s, twice: {day.fewest_pulls()} pulls at least, {limit} in six hours")
    with tempfile.TemporaryDirectory(prefix="economy-", dir=options.directory) as name:
        folders = [Path(name) / each for each in ("whole", "half")]
        for folder in folders:
            folder.mkdir()
        found = asyncio.run(replay(day, DAY, limit, factor, folders[0], say))
        say(f"the same with {half} pulls in six hours")
        halves = asyncio.run(replay(day, HALF, half, factor, folders[1], say))
    text = page(day, found, halves, factor, options.seed)
    print(text)
    if out is not None:
        (out / "results.md").write_text(text)
        draw_economy(day, found, out / "economy.png")
        pairs = (
            ("clients can go around the cache", halves[0], halves[1]),
            ("they have no way around it", halves[2], halves[3]),
        )
        draw_half(day, pairs, out / "half-quota.png")
    failures = complaints(found)
    for each in failures:
        print(f"Failed: {each}", file=sys.stderr)
    return FAILED if failures else OK


if __name__ == "__main__":
    sys.exit(main())
