"""The benchmark: its guard runs, its goals are judged, its page and pictures are made, it can do a `docker pull`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from bench import docker_pull, image
from bench.flame import draw_flames
from bench.goal import Goal, State
from bench.guard import guard, guarded, regressions
from bench.hits import idle
from bench.line import Line
from bench.measures import family, resident_mib
from bench.plot import draw_ratios, goodness
from bench.rivals import DOCKER_REGISTRY, NGINX, OURS, RIVALS, TWO_WORKERS, Rival, Site, pairs
from bench.row import Figures, Row, Work
from bench.rows import works
from bench.run import Run
from bench.stacks import Stacks
from bench.stand import DEFAULT, FULL, GUARD, Form, Stand, standing
from bench.table import markdown
from bench.upstream import MIB
from tests.programs import require_program, skip_or_fail

HOUSE = Path(__file__).parent.parent
PNG = b"\x89PNG\r\n\x1a\n"
TINY = Form(name="tiny", rounds=1, seconds=1, large=MIB, crowd=MIB)


def line(row: Row, ours: list[float | None], nginx: list[float | None], two: list[float | None] | None = None) -> Line:
    return Line(row, {OURS.name: ours, NGINX.name: nginx, TWO_WORKERS.name: two or []})


def say(_: str) -> None:
    """Nobody listens here."""


# The guard


def test_the_guard_finds_nothing_that_costs_far_more_cpu_than_it_did(tmp_path: Path) -> None:
    """CPU for a unit of work against nginx's in the same run; that the benchmark runs at all is seen here, too."""
    require_program("nginx", "nginx-light")
    require_program("wrk", "wrk")

    command = [sys.executable, "-m", "bench", "--guard", "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"{OURS.name}: ") == done.stderr.count(f"{NGINX.name}: ") > len(GUARDED)
    assert list(tmp_path.iterdir()) == []


GUARDED = guarded(works(GUARD, docker=False))


def test_the_guard_looks_at_small_warm_and_cold() -> None:
    titles = " ".join(row.title for work in GUARDED for row in work.rows if row.guard is not None)

    assert len(GUARDED) == 6
    for kind in ("digest", "tag", "config", "4 MiB warm", "256 MiB warm", "256 MiB cold"):
        assert kind in titles


def test_the_best_try_counts_and_what_was_not_measured_is_a_regression() -> None:
    row = Row("CPU", "ms", guard=2)

    assert regressions([line(row, [3, 1.9], [1, 1])]) == []
    assert regressions([line(row, [3, 2.1], [1, 1])]) == ["CPU: 2.10 of nginx's, at most 2 is allowed"]
    assert regressions([line(row, [None], [1])]) == ["CPU: not measured"]
    assert regressions([line(Row("memory", "MiB"), [3], [1])]) == []


@pytest.mark.parametrize(("costs", "tries"), [([9, 9, 9, 9], 3), ([9, 1, 9, 9], 2), ([1, 9, 9, 9], 1)])
def test_work_is_tried_again_only_while_it_costs_too_much(costs: list[float], tries: int) -> None:
    left = iter(costs)
    row = Row("CPU", "ms", guard=2)
    done: list[Rival] = []

    def cost(_: Stand, rival: Rival) -> Figures:
        done.append(rival)
        return (next(left) if rival is OURS else 1.0,)

    work = Work("work", (row,), cost)
    run = Run(cast(Stand, None), (OURS, NGINX), [work], say)

    assert bool(guard(run, [work], say)) == (tries == 3)
    assert done == [OURS, NGINX] * tries


# The goals


@pytest.mark.parametrize(
    ("figure", "more", "less"),
    [(1.0, State.AIM, State.MISSED), (0.7, State.MUST, State.MUST), (0.5, State.MISSED, State.AIM)],
)
def test_a_figure_is_judged_by_the_side_that_is_better(figure: float, more: State, less: State) -> None:
    assert Goal(must=0.6, aim=0.9).state(figure, more_is_better=True) is more
    assert Goal(must=0.8, aim=0.6).state(figure, more_is_better=False) is less
    assert Goal(must=0.6, aim=0.9).state(None, more_is_better=True) is State.UNKNOWN


def test_a_goal_is_about_our_figures_or_about_ratios_within_a_round() -> None:
    figures = line(Row("memory", "MiB"), [40, None, 60], [20, 20, 20])

    assert figures.judged(Goal(must=60, aim=40)) == [40, 60]
    assert figures.judged(Goal(must=1, aim=1, against=NGINX.name)) == [2, 3]
    assert figures.state(Goal(must=60, aim=40)) is State.MUST


def test_every_goal_of_the_full_form_has_an_aim_beyond_its_must_and_a_rival_that_exists() -> None:
    rows = [row for work in works(FULL, docker=True) for row in work.rows]
    names = {None, TWO_WORKERS.name, *(rival.name for rival in RIVALS)}

    for row in rows:
        for goal in row.goals:
            assert goal.aim >= goal.must if row.more_is_better else goal.aim <= goal.must
            assert {goal.ours, goal.against} <= names
    assert len({row.title for row in rows}) == len(rows)
    assert any("64 clients, one cold 1024 MiB" in row.title and "peak" in row.title and row.goals for row in rows)


def test_a_real_docker_pull_is_part_of_the_table_only_where_it_can_be_run() -> None:
    def titles(*, docker: bool) -> str:
        return " ".join(row.title for work in works(DEFAULT, docker=docker) for row in work.rows)

    assert "docker pull, 20 layers: cold" in titles(docker=True)
    assert "docker pull" not in titles(docker=False)


# The pages and the pictures


def test_the_page_compares_two_workers_with_one_and_says_which_goals_are_met() -> None:
    compared = pairs([OURS, TWO_WORKERS, NGINX])
    goals = (Goal(must=0.6, aim=1, against=NGINX.name), Goal(must=1, aim=2, ours=TWO_WORKERS.name, against=OURS.name))
    figures = line(Row("hits", "requests/s", True, goals), [50, 70], [100, 100], [75, 70])

    text = markdown([figures], [OURS.name, TWO_WORKERS.name, NGINX.name], compared, ["about"], [])

    assert "| pullthrough-2 / pullthrough | pullthrough / nginx |" in text
    assert "| hits | requests/s ↑ | 60 | 72.5 | 100 | **1.25** (1.00–1.50) | **0.60** (0.50–0.70) |" in text  # noqa: RUF001
    assert "| hits | pullthrough / nginx | ≥ 0.6 | ≥ 1 | 0.6 | reached |" in text
    assert "| hits | pullthrough-2 / pullthrough | ≥ 1 | ≥ 2 | 1.25 | reached |" in text


def test_a_goal_without_its_rival_is_not_measured_and_not_drawn(tmp_path: Path) -> None:
    goals = (Goal(must=1, aim=2, against=NGINX.name),)
    broken = line(Row("hits", "MB/s", True, goals), [1], [None])

    text = markdown([broken], [OURS.name], [], [], ["it broke"])
    draw_ratios([broken], tmp_path / "empty.png")

    assert "| ≥ 1 | ≥ 2 |  | not measured |" in text
    assert "- it broke" in text
    assert (tmp_path / "empty.png").read_bytes().startswith(PNG)


def test_in_the_picture_further_right_is_better() -> None:
    against, own = Goal(must=1.5, aim=1, against=NGINX.name), Goal(must=60, aim=40)

    assert goodness(2, against, more_is_better=False) == 0.5
    assert goodness(2, against, more_is_better=True) == 2
    assert goodness(30, own, more_is_better=False) == 2


def test_the_pictures_are_small_pngs(tmp_path: Path) -> None:
    every = [row for work in works(FULL, docker=True) for row in work.rows]

    draw_ratios([line(row, [8, 9], [10, 10], [9, 9]) for row in every], tmp_path / "ratios.png")
    draw_flames({"small": Stacks(SAMPLES), "large": Stacks(SAMPLES)}, tmp_path / "flames.png")

    for name in ("ratios.png", "flames.png"):
        picture = (tmp_path / name).read_bytes()
        assert picture.startswith(PNG)
        assert len(picture) < 200 * 1024


# The profile

LOOP = "BaseEventLoop._run_once (asyncio/base_events.py)"
SAMPLES = (
    f'process 7:"python";thread (0x7): MainThread;main (proxy/__main__.py);{LOOP};Pump._turn (proxy/server/pump.py) 3',
    f"thread (8): MainThread;main (proxy/__main__.py);{LOOP};Pump._turn (proxy/server/pump.py);wait (selectors.py) 1",
    "thread (8): transfer_0;Thread.run (threading.py);Partial.write (proxy/store/fills/partial.py) 4",
    "thread (8): pool_0;_worker (concurrent/futures/thread.py) 100",
)


def test_samples_are_counted_by_function_whatever_thread_and_process_they_are_of() -> None:
    stacks = Stacks(SAMPLES)

    assert stacks.samples == 8, "a thread that waits for work was counted"
    assert stacks.own() == {
        "Pump._turn (proxy/server/pump.py)": 3,
        "wait (selectors.py)": 1,
        "Partial.write (proxy/store/fills/partial.py)": 4,
    }
    assert stacks.cumulative() == {
        "Pump._turn (proxy/server/pump.py)": 4,
        "Partial.write (proxy/store/fills/partial.py)": 4,
    }
    assert {name: node.samples for name, node in stacks.tree().callees.items()} == {"MainThread": 4, "transfer_0": 4}
    assert list(stacks.tree().callees["MainThread"].callees) == [LOOP]


# What is measured


def test_the_cost_of_a_server_is_that_of_all_its_processes() -> None:
    child = "print('up', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "up\n"
        first, second = family(process.pid)
        assert resident_mib(first) > resident_mib(second) > 0
        process.stdin.write("\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_two_workers_are_a_setting_and_one_is_none(tmp_path: Path, workers: int) -> None:
    rival = {1: OURS, 2: TWO_WORKERS}[workers]

    rival.command(Site(tmp_path, 1, "http://127.0.0.1:2"))

    assert ("workers = 2" in (tmp_path / "pullthrough.toml").read_text()) == (workers == 2)


def test_dockerd_pulls_the_image_past_the_cache_and_through_it(tmp_path: Path) -> None:
    for rival, package in ((NGINX, "nginx-light"), (DOCKER_REGISTRY, "docker-registry")):
        require_program(rival.name, package)
    if reason := docker_pull.missing():
        skip_or_fail(reason)
    rows = tuple(Row(name, "s") for name in ("direct", "cold", "warm"))

    with standing(tmp_path, TINY, [OURS], docker=True) as stand:
        figures = docker_pull.pull_image((rows[0], rows[1], rows[2])).run(stand, OURS)
        (connected,) = idle(Row("idle", "MiB")).run(stand, OURS)
        layers = list((tmp_path / "upstream/files/v2" / image.REPOSITORY / "blobs").iterdir())
        fetched = [stand.upstream.fetches(f"/v2/{image.REPOSITORY}/blobs/{blob.name}", since=0) for blob in layers]

    assert all(seconds > 0 for seconds in figures)
    assert len(layers) == image.LAYERS + 1
    assert set(fetched) == {2}, "each blob once directly, once for the cache, and not for the warm pull"
    assert connected > 0
