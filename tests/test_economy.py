"""The economy benchmark: its day is always the same, its clients see what they must not miss, and a short one runs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from economy.clients import Host, PullError, Runner
from economy.findings import Findings, Outcome, Sample
from economy.goods import Goods
from economy.pace import EPOCH, HOUR, MINUTE, Pace, clock_text
from economy.page import complaints, page
from economy.plot import draw_economy, draw_half
from economy.replay import replay
from economy.rivals import DOCKER_REGISTRY, GOVERNED, HALF, NGINX, NO_CACHE, OURS, UNGOVERNED, Rival
from economy.table import economy_table, jobs_that_differ, most_in_window
from economy.workload import FULL, SHORT, Day, Form, ImageName, Job, Move, plan, platform_of
from tests.cache_rig import CacheRig
from tests.fake_hub import ANONYMOUS, FakeHub
from tests.programs import require_program

PNG = b"\x89PNG\r\n\x1a\n"
MINI = Form("mini", 0.25, 5, 2, 2, 1, 0, (0.23, 0.24), 100)


def say(_: str) -> None:
    """Nobody listens here."""


# The day


def test_the_day_is_the_same_for_the_same_seed_and_as_large_as_its_form_says() -> None:
    day, again, other = plan(FULL, 1), plan(FULL, 1), plan(FULL, 2)

    assert (day.moves, day.jobs) == (again.moves, again.jobs)
    assert day.jobs != other.jobs
    assert len({image for job in day.jobs for image in job.images}) == 40
    assert (len(day.jobs), len({job.client for job in day.jobs})) == (300, 20)
    assert any(job.pinned for job in day.jobs)


def test_a_limit_of_100_is_enough_for_the_day_and_half_of_it_is_not() -> None:
    day = plan(FULL, 1)

    assert 80 <= day.needed_quota() <= day.form.limit < sum(len(list(day.needs(job))) for job in day.jobs)
    assert day.needed_quota() <= day.fewest_pulls()


@pytest.mark.parametrize("late", [-5 * MINUTE, 5 * MINUTE])
@pytest.mark.parametrize("form", [FULL, SHORT])
def test_it_does_not_depend_on_a_few_minutes_which_manifests_are_wanted(form: Form, late: float) -> None:
    day = plan(form, 1)
    later = replace(day, jobs=tuple(replace(job, at=job.at + late) for job in day.jobs))

    assert later.first_needs().keys() == day.first_needs().keys()


def test_in_the_outage_nothing_is_wanted_that_was_not_wanted_before() -> None:
    day = plan(FULL, 1)
    begin, end = day.outage
    inside = [job for job in day.jobs if begin <= job.at <= end]

    assert len(inside) > 10
    first = day.first_needs()
    assert all(first[need] < begin for job in inside for need in day.needs(job))


def test_the_fewest_pulls_are_the_different_manifests_and_the_quota_is_what_is_new_in_six_hours() -> None:
    image = ImageName("library/a", "1", ("linux/amd64", "linux/arm64"), 0)
    single = ImageName("library/b", "1", ("linux/amd64",), 0)
    jobs = (
        Job(0, 0.0, 0, (image,), pinned=False),  # the index, and amd64
        Job(1, 1 * HOUR, 4, (image,), pinned=False),  # arm64
        Job(2, 2 * HOUR, 0, (image, single), pinned=False),  # the other image
        Job(3, 9 * HOUR, 0, (image,), pinned=False),  # it has moved: index and amd64 again
        Job(4, 9 * HOUR, 0, (image,), pinned=True),  # nothing new
    )
    day = Day(FULL, (image, single), (Move(8 * HOUR, image, 1),), jobs, (14 * HOUR, 15 * HOUR))

    assert day.fewest_pulls() == 6
    assert day.needed_quota() == 4
    assert platform_of(single, 4) == "linux/amd64"


async def test_the_clock_of_the_day_runs_faster_and_is_shared_by_processes() -> None:
    pace = Pace(1000.0)
    same = Pace(1000.0, pace.began)
    pace.midnight()

    await pace.until(100.0)

    assert pace.now >= 100.0
    assert abs(same.time() - pace.time()) < 10.0
    assert Pace(10.0, time.monotonic() - 5.0).monotonic() == pytest.approx(EPOCH + 50.0, abs=10.0)
    assert clock_text(14 * HOUR + 5 * MINUTE) == "14:05"


# The clients


@pytest.fixture
def day() -> Day:
    return plan(SHORT, 1)


@pytest.fixture
def goods(hub: FakeHub, day: Day) -> Goods:
    """On the hub; the first image has a second version."""
    return Goods(hub, replace(day, moves=(Move(0.0, day.images[0], 1),)))


async def pull(goods: Goods, day: Day, client: int, *hosts: Host) -> tuple[Findings, Outcome]:
    """One job that wants the first image."""
    found = Findings("x", 100)
    job = Job(0, 0.0, client, (day.images[0],), pinned=False)
    outcome = Outcome(job, 0.0)
    try:
        await Runner(job, hosts, goods, found, outcome).run()
    except PullError as error:
        outcome.failed = str(error)
    return found, outcome


@pytest.mark.parametrize("client", [0, 1])
async def test_a_pull_costs_an_index_and_a_manifest_and_gets_every_blob(
    hub: FakeHub, goods: Goods, day: Day, client: int
) -> None:
    found, outcome = await pull(goods, day, client, Host(hub.url, is_mirror=False))

    assert outcome.failed is None
    assert hub.counted_pulls == len(found.asked) == 2
    assert hub.cdn_count() == 5
    assert found.wrong == hub.violations == []


@pytest.mark.parametrize("client", [0, 1])
async def test_a_client_goes_around_a_mirror_that_fails_and_pays_with_the_address_of_all(
    hub: FakeHub, goods: Goods, day: Day, client: int
) -> None:
    async with FakeHub() as mirror:
        mirror.fail("any", 503)
        found, outcome = await pull(
            goods, day, client, Host(mirror.url, is_mirror=True), Host(hub.url, is_mirror=False)
        )

    assert (outcome.failed, outcome.direct) == (None, True)
    assert hub.counted_pulls_of(ANONYMOUS) == 2
    assert found.statuses[503] > 0


async def test_containerd_repeats_what_was_limited_and_dockerd_does_not(hub: FakeHub, goods: Goods, day: Day) -> None:
    hub.set_remaining(0)

    for client, answers in ((0, 5), (1, 1)):
        found, outcome = await pull(goods, day, client, Host(hub.url, is_mirror=False))
        assert outcome.failed is not None
        assert found.limited == answers


async def test_wrong_bytes_are_seen_and_complained_about(hub: FakeHub, goods: Goods, day: Day) -> None:
    hub.corrupt("cdn", 5)

    found, outcome = await pull(goods, day, 0, Host(hub.url, is_mirror=False))

    assert outcome.failed is not None
    assert outcome.missed == day.images[0].repository
    assert "wrong bytes" in "".join(complaints([replace(found, rival=OURS.name)]))


async def test_a_tag_that_has_moved_is_outdated_and_says_so_if_the_cache_does(
    hub: FakeHub, goods: Goods, day: Day, tmp_path: Path
) -> None:
    async with CacheRig(hub.url, tmp_path / "cache", username=None) as cache:
        mirror = Host(cache.url, is_mirror=True)
        _, before = await pull(goods, day, 0, mirror)
        goods.move(day.images[0], 1)
        _, fresh = await pull(goods, day, 0, mirror)
        cache.clock.advance(301.0)
        await hub.gone()
        _, stale = await pull(goods, day, 0, mirror)

    assert (before.failed, before.outdated, before.marked) == (None, 0, 0)
    assert (fresh.failed, fresh.outdated, fresh.marked) == (None, 1, 0)
    assert (stale.failed, stale.outdated, stale.marked) == (None, 1, 1)


# The rivals


@pytest.mark.parametrize(
    ("rival", "pulls"),
    [(NO_CACHE, 4), (NGINX, 3), (DOCKER_REGISTRY, 2), (OURS, 2)],
    ids=lambda each: each.name if isinstance(each, Rival) else "",
)
async def test_each_rival_serves_a_pull_and_another_one(rival: Rival, pulls: int, tmp_path: Path) -> None:
    for name, package in (("nginx", "nginx-light"), ("docker-registry", "docker-registry")):
        if rival.name == name:
            require_program(name, package)
    image = plan(MINI, 1).images[0]
    jobs = tuple(Job(number, 7.0 * number * MINUTE, 0, (image,), pinned=False) for number in range(2))
    day = Day(MINI, (image,), (), jobs, (0.23 * HOUR, 0.24 * HOUR))

    (found,) = await replay(day, [rival], 100, 600.0, tmp_path, say)

    assert [each.failed for each in found.outcomes] == [None, None]
    assert found.counted == pulls
    assert found.wrong == []


async def test_a_short_day_costs_us_each_manifest_once_and_no_job(tmp_path: Path) -> None:
    day = plan(SHORT, 1)

    without, ours = await replay(day, [NO_CACHE, OURS], day.form.limit, 900.0, tmp_path, say)

    assert complaints([without, ours]) == []
    assert ours.counted == len(ours.asked)
    if_none_moved = len({(image, part) for image, _, part in day.first_needs()})
    assert ours.counted > if_none_moved, "no tag was seen to move: its clock is not that of the day"
    assert ours.decisions["pass"] == ours.counted
    assert (ours.limited, without.counted) == (0, day.form.limit)
    assert without.limited > 0
    assert len(without.failed) > 0
    assert most_in_window(ours) <= ours.counted < most_in_window(without) == day.form.limit


# The figures


def made_up(name: str, counted: int, failed: tuple[int, ...], day: Day) -> Findings:
    found = Findings(name, 40, counted=counted, asked={("a", str(number)) for number in range(counted)})
    for job in day.jobs:
        outcome = Outcome(job, job.at, job.at + MINUTE, outdated=job.number % 2)
        if job.number in failed:
            outcome.failed, outcome.missed = "429", job.images[0].repository
        found.outcomes.append(outcome)
    found.samples = [Sample(minute * MINUTE, max(0, 40 - minute), minute, 0) for minute in range(150)]
    return found


def test_what_is_not_as_it_has_to_be_is_complained_about(day: Day) -> None:
    found = made_up(OURS.name, 28, (3,), day)
    found.counted += 1

    first, second = complaints([found])

    assert "429" in first
    assert second == "pullthrough: 29 pulls were counted for 28 different manifests"
    assert complaints([made_up(OURS.name, 28, (), day)]) == []


def test_the_page_has_the_figures_and_names_the_jobs_that_differ(day: Day) -> None:
    found = [made_up(each.name, 30 + number, (number,), day) for number, each in enumerate((NO_CACHE, OURS))]
    half = [made_up(each.name, 20, (5 + number,), day) for number, each in enumerate(HALF)]

    text = page(day, found, half, 900.0, 1)

    assert "| no cache | 30 | 30 | 40 | 1 of 40 | 0 |" in text
    assert f"| *physical limit* | {day.fewest_pulls()} |" in economy_table(day, found)
    assert "{" not in text
    lost = day.jobs[5]
    assert f"- Failed only with it: 1 ({clock_text(lost.at)} " in text
    assert lost.images[0].repository in jobs_that_differ(half[0], half[1])


def test_the_pictures_are_small_pngs(day: Day, tmp_path: Path) -> None:
    found = [made_up(each.name, 30, (1, 2), day) for each in (NO_CACHE, NGINX, DOCKER_REGISTRY, OURS)]
    half = [made_up(each.name, 20, (3,), day) for each in (GOVERNED, UNGOVERNED)]

    draw_economy(day, found, tmp_path / "economy.png")
    draw_half(day, [("one", half[0], half[1]), ("two", half[0], half[1])], tmp_path / "half.png")

    for name in ("economy.png", "half.png"):
        picture = (tmp_path / name).read_bytes()
        assert picture.startswith(PNG)
        assert len(picture) < 200 * 1024
