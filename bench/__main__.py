"""`python -m bench`: run the benchmark, write the table and draw the ratios."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bench import docker_pull
from bench.errors import BenchError, MissingProgram
from bench.guard import RIVALS as GUARD_RIVALS
from bench.guard import guard, guarded
from bench.machine import machine
from bench.measures import Others
from bench.plot import draw_ratios
from bench.processes import program
from bench.rivals import DOCKER_REGISTRY, RIVALS, Rival, pairs
from bench.row import Work
from bench.rows import works
from bench.run import Run, Say
from bench.stand import DEFAULT, FULL, GUARD, SHORT, Form, standing
from bench.table import markdown

OK, FAILED, USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 done, 1 something failed, 2 wrong usage or a missing program."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # so that the servers are stopped
    parser = _parser()
    options = parser.parse_args(argv)
    form: Form = replace(options.form, rounds=options.rounds or options.form.rounds)
    no_docker = "not in this form" if form.name == GUARD.name else docker_pull.missing()
    chosen = _chosen_works(form, options.work, docker=no_docker is None)
    if complaint := _complaint(options, chosen):
        parser.error(complaint)
    try:
        if form.name == GUARD.name:
            return _guard(form, guarded(chosen), options)
        return _run(form, _chosen_rivals(options.rivals), chosen, no_docker, options)
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
    for form, help_text in (
        (SHORT, "one quick round"),
        (FULL, "more and longer rounds, and 64 pulls of 1 GiB"),
        (GUARD, "fail if a unit of work costs far more CPU than nginx's; writes nothing"),
    ):
        forms.add_argument(f"--{form.name}", action="store_const", dest="form", const=form, help=help_text)
    parser.set_defaults(form=DEFAULT)
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds, instead of those of the form")
    parser.add_argument("--rival", action="append", dest="rivals", choices=[rival.name for rival in RIVALS])
    parser.add_argument("--work", action="append", metavar="TEXT", help="only work whose name contains this")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_name("results.md"),
        metavar="FILE",
        help="the table; the picture is put beside it",
    )
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


def _chosen_works(form: Form, texts: Sequence[str] | None, *, docker: bool) -> list[Work]:
    every = works(form, docker=docker)
    return [work for work in every if texts is None or any(text in work.name for text in texts)]


def _require(programs: Iterable[str]) -> None:
    for name in programs:
        program(name)


def _run(
    form: Form, rivals: Sequence[Rival], chosen: Sequence[Work], no_docker: str | None, options: argparse.Namespace
) -> int:
    _require(("nginx", "openssl", "taskset", "wrk", DOCKER_REGISTRY.name))
    say, others, start = _say_since(time.monotonic()), Others(), time.monotonic()
    docker = any(work.name.startswith("docker pull") for work in chosen)
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as directory,
        standing(Path(directory), form, rivals, docker=docker) as stand,
    ):
        run = Run(stand, rivals, chosen, say)
        run.rounds(form.rounds)
        busy = f"Everything else on the machine took {others.share:.0%} of its CPU time."
    about = [machine(), _description(form, start), busy]
    if no_docker:
        about.append(f"No real `docker pull`: {no_docker}.")
    page = markdown(run.lines, [rival.name for rival in rivals], pairs(rivals), about, run.failures)
    options.out.write_text(page)
    draw_ratios(run.lines, options.out.with_suffix(".png"))
    print(page)
    return FAILED if run.failures else OK


def _guard(form: Form, chosen: Sequence[Work], options: argparse.Namespace) -> int:
    _require(("nginx", "openssl", "wrk"))
    say = _say_since(time.monotonic())
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as directory,
        standing(Path(directory), form, GUARD_RIVALS) as stand,
    ):
        complaints = guard(Run(stand, GUARD_RIVALS, chosen, say), chosen, say)
    for complaint in complaints:
        print(f"bench: {complaint}", file=sys.stderr)
    return FAILED if complaints else OK


def _say_since(start: float) -> Say:
    """Tell on standard error what is being done, and how long it has taken."""
    return lambda line: print(f"{time.monotonic() - start:5.0f} s {line}", file=sys.stderr, flush=True)


def _description(form: Form, start: float) -> str:
    rounds = "1 round" if form.rounds == 1 else f"{form.rounds} rounds"
    return f"Form: {form.name}, {rounds}, {time.monotonic() - start:.0f} s."


if __name__ == "__main__":
    sys.exit(main())
