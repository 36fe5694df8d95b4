"""`python -m bench.profile`: where our time goes in a small hit, a warm and a cold large blob.

py-spy looks at the server from outside, a few hundred times a second, and counts the threads that run. It writes a
table of the functions that took most, and a flame graph, beside the results of the benchmark. It has to be allowed
to look (ptrace): root is.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.errors import BenchError
from bench.flame import draw_flames
from bench.load import ask_often, pull, pull_often
from bench.machine import machine
from bench.rivals import OURS
from bench.stacks import Stacks
from bench.stand import Form, Stand, standing
from bench.upstream import MIB

FORM = Form(name="profile", rounds=1, seconds=5, large=1024 * MIB, crowd=MIB)
COLD_PULLS = 3
RATE = 400  # samples a second
SPY = str(Path(sys.executable).with_name("py-spy"))
TOP = 15

NOTES = """\
Shares of the samples in which a thread ran, seen from outside while the work went on: in C code, too, which counts for
the function that called it. `select` is the loop that waits, or asks whether it has to. The flame graph is in
[profile.png](profile.png): ours is green."""


def main(argv: Sequence[str] | None = None) -> int:
    """Take the profile; 0 done, 1 it failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="for profile.md and .png"
    )
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where caches and content are put for the run")
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as directory:
            found = profile(Path(directory), FORM)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    (options.out / "profile.md").write_text(page(found, machine(("wrk",))))
    draw_flames(found, options.out / "profile.png")
    return 0


def profile(directory: Path, form: Form) -> dict[str, Stacks]:
    """Sample the server in each kind of work, in a folder for everything; raise `BenchError` if nothing is seen."""
    kinds: dict[str, Callable[[Stand, Path], None]] = {
        "small hit: a manifest by digest": _small,
        f"warm: {form.large // MIB} MiB": _warm,
        f"cold: {form.large // MIB} MiB": _cold,
    }
    found = {}
    with standing(directory, form, [OURS]) as stand:
        for number, (name, work) in enumerate(kinds.items()):
            folder = directory / f"samples-{number}"
            folder.mkdir()
            work(stand, folder)
            found[name] = Stacks(line for file in folder.iterdir() for line in file.read_text().splitlines())
            if not found[name].samples:
                raise BenchError(f"{name}: py-spy saw nothing")
    return found


def page(found: dict[str, Stacks], about: str) -> str:
    """Return the tables as a Markdown page."""
    parts = ["# Profile", about, NOTES]
    for name, stacks in found.items():
        parts.append(f"## {name}")
        for title, counts in (("by itself", stacks.own()), ("with what it calls, ours", stacks.cumulative())):
            lines = [f"| % {title} | function |", "| ---: | --- |"]
            top = counts.most_common(TOP)
            parts.append("\n".join(lines + [f"| {count / stacks.samples:.1%} | `{each}` |" for each, count in top]))
    return "\n\n".join(parts) + "\n"


def _small(stand: Stand, folder: Path) -> None:
    server = stand.warm[OURS.name]
    with _sampled(server.pid, folder / "all"):
        ask_often(server.port, stand.content.by_digest, connections=32, seconds=stand.form.seconds)


def _warm(stand: Stand, folder: Path) -> None:
    server = stand.warm[OURS.name]
    with _sampled(server.pid, folder / "all"):
        pull_often(server.port, stand.content.large.path, clients=1, seconds=stand.form.seconds)


def _cold(stand: Stand, folder: Path) -> None:
    """As often as it takes to see something: each pull needs an empty cache."""
    for number in range(COLD_PULLS):
        with stand.fresh(OURS) as server, _sampled(server.pid, folder / str(number)):
            pull(server.port, stand.content.large.path)


@contextmanager
def _sampled(pid: int, file: Path) -> Iterator[None]:
    """Let py-spy write the stacks of a process and its children into a file while the block runs."""
    how = ["--pid", str(pid), "--subprocesses", "--threads", "--nolineno", "--rate", str(RATE), "--format", "raw"]
    with ExitStack() as stack:
        pipe = subprocess.PIPE
        spy = stack.enter_context(
            subprocess.Popen([SPY, "record", *how, "--output", str(file)], stdout=pipe, stderr=pipe, text=True)
        )
        stack.callback(spy.kill)
        yield
        spy.send_signal(signal.SIGINT)
        _, complaint = spy.communicate()
        if not file.exists():
            raise BenchError(f"py-spy ended with {spy.returncode}: {complaint.strip()[-200:]}")


if __name__ == "__main__":
    sys.exit(main())
