"""The long runs see what they look for: each of their instruments is shown what it must not miss."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from aiohttp import web

from endurance.clients import Crowd
from endurance.fabricate import entry, fabricate
from endurance.goods import Goods, mixed_sizes, partials, wrong_blobs, wrong_partials
from endurance.probe import Waits, probing
from endurance.report import report
from endurance.samples import Sample, slope
from endurance.serving import Serving
from endurance.soak import SHORT, Outcome
from proxy.clock import SystemClock
from proxy.oci.names import Digest, Repository
from proxy.store.index import Index
from tests.blob_rig import KIB, MIB
from tests.eventually import eventually
from tests.fake_hub import FakeHub

SIZE = 300 * KIB
Answer = Callable[[web.Request], web.Response]


@pytest.fixture
async def goods(hub: FakeHub) -> Goods:
    return Goods(hub, [SIZE], 1, random.Random(1))


@asynccontextmanager
async def lying(answer: Answer) -> AsyncIterator[str]:
    """A cache that is none, at this URL."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return answer(request)  # type: ignore[arg-type]

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def crowd_of(goods: Goods, answer: Answer, *, upstream_lies: bool = False) -> Crowd:
    """Clients that have met these answers."""
    async with lying(answer) as url:
        crowd = Crowd(goods, lambda: url, random.Random(1), upstream_lies=upstream_lies)
        running = asyncio.create_task(crowd.run(2))
        await eventually(lambda: crowd.findings.answers.total() >= 20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return crowd


def blob(request: web.Request, goods: Goods) -> bytes:
    """The right bytes of what is asked for."""
    digest = request.path.rpartition("/")[2]
    if digest == "latest":
        return goods.tags[0].images[-1].body
    content = goods.content_of(digest)
    return content.read(0, content.size)


async def test_clients_of_a_right_cache_find_nothing(goods: Goods) -> None:
    crowd = await crowd_of(goods, lambda request: web.Response(body=blob(request, goods)))

    assert (crowd.findings.wrong, crowd.findings.broken) == ([], 0)
    assert crowd.findings.complete > 0


async def test_clients_see_a_wrong_byte(goods: Goods) -> None:
    crowd = await crowd_of(goods, lambda request: web.Response(body=blob(request, goods)[:-1] + b"x"))

    assert any("wrong bytes" in text for text in crowd.findings.wrong)
    assert any("none of the tag" in text for text in crowd.findings.wrong)


async def test_clients_see_a_short_body_that_ends_cleanly(goods: Goods) -> None:
    crowd = await crowd_of(goods, lambda request: web.Response(body=blob(request, goods)[:-1]))

    assert any("and a clean end" in text for text in crowd.findings.wrong)


async def test_clients_see_a_500(goods: Goods) -> None:
    crowd = await crowd_of(goods, lambda _: web.Response(status=500))

    assert any("status 500" in text for text in crowd.findings.wrong)


@pytest.mark.parametrize(("outcome", "allowed"), [("pullthrough; fwd=miss", True), ("pullthrough; hit", False)])
async def test_wrong_bytes_of_upstreams_are_excused_in_a_range_of_a_running_fill_only(
    goods: Goods, outcome: str, allowed: bool
) -> None:
    def answer(request: web.Request) -> web.Response:
        if "Range" not in request.headers:
            return web.Response(body=blob(request, goods))
        first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
        return web.Response(status=206, body=b"\x01" * (int(last) - int(first) + 1), headers={"Cache-Status": outcome})

    crowd = await crowd_of(goods, answer, upstream_lies=True)

    assert bool(crowd.findings.lied_to) == allowed
    assert bool(crowd.findings.wrong) != allowed


def test_sizes_are_small_and_large() -> None:
    sizes = mixed_sizes(100, 8 * MIB, random.Random(1))

    assert sum(size <= MIB for size in sizes) == 50
    assert min(sizes) >= KIB and max(sizes) <= 8 * MIB


async def test_what_is_wrong_on_disk_is_seen(goods: Goods, tmp_path: Path) -> None:
    digest = goods.blobs[-1].digest
    partial = tmp_path / "partial" / digest.replace(":", "-")
    (tmp_path / "partial").mkdir()
    stored = tmp_path / "blobs" / "sha256" / digest[7:9] / digest[7:]
    stored.parent.mkdir(parents=True)
    content = goods.content_of(digest).read(0, SIZE)
    stored.write_bytes(content)
    partial.write_bytes(content[:1000])
    assert (wrong_blobs(tmp_path), wrong_partials(tmp_path, goods)) == ([], [])
    assert partials(tmp_path) == {digest: 1000}

    stored.write_bytes(content[:-1] + b"x")
    partial.write_bytes(content[1:1000])

    assert wrong_blobs(tmp_path) == [stored.name]
    assert wrong_partials(tmp_path, goods) == [digest]


def test_what_should_not_be_in_a_log_is_seen(tmp_path: Path) -> None:
    cache = Serving(tmp_path, "http://127.0.0.1:1")
    good = '{"level": "warning", "message": "broken off"}'
    bad = [
        '{"level": "error", "message": "x", "traceback": "T"}',
        "Fatal Python error",
        '{"message": "should not happen"}',
    ]
    cache.log.write_text("\n".join([good, *bad]) + "\n")

    assert cache.complaints() == bad


async def test_a_process_that_does_not_start_says_why(tmp_path: Path) -> None:
    cache = Serving(tmp_path, "http://127.0.0.1:1", {"server": {"listen": "nowhere"}})

    with pytest.raises(Exception, match=r"did not start: .*listen"):
        await cache.start()


def test_growth_is_the_slope_of_the_second_half() -> None:
    assert slope([(0, 10.0), (1, 12.0), (2, 14.0)]) == pytest.approx(2.0)
    assert slope([(0, 1.0)]) == 0.0

    samples = [Sample(second, 100 + max(0, second - 50), 10, 5, 5, 0, 0) for second in range(100)]
    assert Outcome(SHORT, samples=samples).growth == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("quiet", "failure"),
    [
        (Sample(0, 1, 11, 5, 5, 0, 0), "1 descriptors are left"),
        (Sample(0, 1, 10, 5, 7, 0, 0), "2 tasks are left"),
    ],
)
def test_what_is_left_over_is_a_failure(quiet: Sample, failure: str) -> None:
    outcome = Outcome(SHORT, fresh=Sample(0, 1, 10, 5, 5, 0, 0), quiet=quiet)

    assert outcome.failures == [failure]


def test_more_than_max_size_is_a_failure() -> None:
    outcome = Outcome(SHORT, samples=[Sample(0, 1, 1, 1, 1, 0, SHORT.max_size + 1)])

    assert outcome.failures == [f"{SHORT.max_size + 1} bytes were on disk, max_size is {SHORT.max_size}"]


async def test_the_probe_tells_how_long_it_waited_and_what_failed() -> None:
    asked: Counter[str] = Counter()

    def answer(request: web.Request) -> web.Response:
        asked[request.path] += 1
        return web.Response(status=200 if request.path == "/good" else 404)

    async with lying(answer) as url, probing(f"{url}/good") as good, probing(f"{url}/bad") as bad:
        await eventually(lambda: min(asked["/good"], asked["/bad"]) >= 3)

    assert len(good.waits) >= 3 and good.failed == 0
    assert len(bad.waits) == bad.failed >= 3
    assert good.percentile(0.0) <= good.percentile(1.0) == max(good.waits)
    assert Waits().percentile(0.5) == 0.0


async def test_a_made_up_folder_is_one_that_the_store_understands(tmp_path: Path) -> None:
    total = fabricate(tmp_path, 120)

    index = Index(tmp_path / "index.sqlite", SystemClock())
    index.open(asyncio.get_running_loop())
    try:
        assert (index.blob_count, index.blob_bytes) == (120, total)
        first = entry(0, 0.0)
        digest = Digest.parse(first.digest)
        link = index.link(Repository("docker.io", first.repository), digest)
        assert link is not None and link.held and link.descriptor.size == first.size == index.blob_size(digest)
    finally:
        index.close()
    assert sum(1 for _ in (tmp_path / "blobs").glob("*/*/*")) == 120
    assert (tmp_path / "blobs" / "sha256" / first.digest[7:9] / first.digest[7:]).stat().st_size == first.size
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM blobs WHERE manifest").fetchone() == (12,)


def test_a_report_tells_figures_and_failures() -> None:
    page = report("A run", [("kills", "7")], ["one was wrong"])

    assert "| kills | 7 |" in page and "- one was wrong" in page
    assert "Nothing failed." in report("A run", [], [])
