"""`python -m bench`: run the benchmark, write the table."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.errors import BenchError, MissingProgram
from bench.machine import machine
from bench.measures import Others
from bench.processes import PACKAGES, program
from bench.rivals import RIVALS, Rival
from bench.rows import Work, works
from bench.run import Run
from bench.stand import DEFAULT, FULL, SHORT, Form, standing
from bench.table import markdown

OK, FAILED, USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 done, 1 something failed, 2 wrong usage or a missing program."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # so that the servers are stopped
    parser = _parser()
    options = parser.parse_args(argv)
    form: Form = replace(options.form, rounds=options.rounds or options.form.rounds)
    rivals, chosen = _chosen_rivals(options.rivals), _chosen_works(form, options.work)
    if complaint := _complaint(options, chosen):
        parser.error(complaint)
    try:
        for name in PACKAGES:
            program(name)
        return _run(form, rivals, chosen, options)
    except MissingProgram as error:
        print(f"bench: {error}", file=sys.stderr)
        return USAGE
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    forms = parser.add_mutually_exclusive_group()
    for form, help_text in ((SHORT, "one quick round"), (FULL, "more and longer rounds, and 64 pulls of 1 GiB")):
        forms.add_argument(f"--{form.name}", action="store_const", dest="form", const=form, help=help_text)
    parser.set_defaults(form=DEFAULT)
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds, instead of those of the form")
    parser.add_argument("--rival", action="append", dest="rivals", choices=[rival.name for rival in RIVALS])
    parser.add_argument("--work", action="append", metavar="TEXT", help="only work whose name contains this")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.md"), metavar="FILE")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where caches and content are put for the run")
    return parser


def _complaint(options: argparse.Namespace, chosen: Sequence[Work]) -> str | None:
    """Say now what would otherwise be found out after minutes."""
    if not chosen:
        return "no work has such a name"
    if options.rounds is not None and options.rounds < 1:
        return f"--rounds {options.rounds}: at least one is needed"
    missing = [folder for folder in (options.out.parent, options.directory) if folder and not folder.is_dir()]
    return f"{missing[0]}: there is no such folder" if missing else None


def _chosen_rivals(names: Sequence[str] | None) -> list[Rival]:
    return [rival for rival in RIVALS if names is None or rival.name in names]


def _chosen_works(form: Form, texts: Sequence[str] | None) -> list[Work]:
    return [work for work in works(form) if texts is None or any(text in work.name for text in texts)]


def _run(form: Form, rivals: Sequence[Rival], chosen: Sequence[Work], options: argparse.Namespace) -> int:
    start, others = time.monotonic(), Others()
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as directory,
        standing(Path(directory), form, rivals) as stand,
    ):
        run = Run(stand, rivals, chosen, lambda line: _say(start, line))
        run.rounds(form.rounds)
        busy = f"Everything else on the machine took {others.share:.0%} of its CPU time."
    about = [machine(), _description(form, start), busy]
    page = markdown(run.lines, [rival.name for rival in rivals], about, run.failures)
    options.out.write_text(page)
    print(page)
    return FAILED if run.failures else OK


def _say(start: float, line: str) -> None:
    print(f"{time.monotonic() - start:5.0f} s {line}", file=sys.stderr, flush=True)


def _description(form: Form, start: float) -> str:
    rounds = "1 round" if form.rounds == 1 else f"{form.rounds} rounds"
    return f"Form: {form.name}, {rounds}, {time.monotonic() - start:.0f} s."


if __name__ == "__main__":
    sys.exit(main())
