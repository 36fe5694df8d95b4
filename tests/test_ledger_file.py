"""The books on disk: what was written is read again, added up, and forgotten in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.store.index import Index, ledger
from proxy.store.index.ledger import (
    KEPT_SECONDS,
    Batch,
    EventRow,
    LedgerFile,
    ObservationRow,
    PullRow,
    ServedRow,
    TopRow,
)
from tests.cache_rig import Clock

NOW = 1_800_000_000.0
ALPINE, APP = "docker.io/library/alpine", "ghcr.io/acme/app"


def pull(at: float, repository: str = ALPINE, client: str = "10.0.0.7", upstream: str = "docker.io") -> PullRow:
    return PullRow(at, upstream, "alice", repository, "sha256:aa", client, None, "docker", "new")


def seen(at: float, remaining: int = 90, account: str = "alice") -> ObservationRow:
    return ObservationRow(at, "docker.io", account, 100, remaining, 21600, "id", "head")


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[LedgerFile]:
    index = Index(tmp_path / "index.sqlite", Clock())
    await asyncio.to_thread(index.open, asyncio.get_running_loop())
    yield LedgerFile(index)
    await asyncio.to_thread(index.close)


async def test_what_was_written_of_an_account_is_read_again_oldest_first(books: LedgerFile) -> None:
    await books.add(Batch(pulls=[pull(NOW), pull(NOW + 1)], observations=[seen(NOW, 90), seen(NOW + 1, 89)]))
    await books.add(Batch(observations=[seen(NOW, 7, "bob")]))

    kept = await books.kept("docker.io", "alice", NOW, NOW + 10)

    assert kept.pulls == [pull(NOW), pull(NOW + 1)]
    assert kept.observations == [seen(NOW, 90), seen(NOW + 1, 89)]
    assert kept.fetched == [(ALPINE, "sha256:aa")]


async def test_what_is_of_the_future_or_too_old_is_left_out(books: LedgerFile) -> None:
    await books.add(Batch(pulls=[pull(NOW - 100), pull(NOW), pull(NOW + 5000)]))

    kept = await books.kept("docker.io", "alice", NOW - 50, NOW + 10)

    assert kept.pulls == [pull(NOW)]


async def test_events_are_read_newest_first(books: LedgerFile) -> None:
    rows = [EventRow(NOW + number, "docker.io", "level", f"{number}") for number in range(5)]
    await books.add(Batch(events=rows))

    assert await books.events(3, NOW + 10) == rows[:1:-1]


async def test_who_cost_most_by_pulls_and_by_bytes(books: LedgerFile) -> None:
    await books.add(
        Batch(
            pulls=[pull(NOW), pull(NOW), pull(NOW, APP, "10.0.0.8")],
            served=[
                ServedRow(NOW, "image", ALPINE, 5, 100),
                ServedRow(NOW, "image", APP, 2, 5000),
                ServedRow(NOW, "client", "10.0.0.7", 7, 5100),
            ],
        )
    )
    await books.add(Batch(served=[ServedRow(NOW + 5, "image", ALPINE, 1, 10)]))

    by_pulls, total = await books.top("image", NOW - 10, "pulls", 10)
    by_bytes, _ = await books.top("image", NOW - 10, "bytes", 1)
    clients, _ = await books.top("client", NOW - 10, "pulls", 10)
    agents, _ = await books.top("agent", NOW - 10, "pulls", 10)

    assert by_pulls == [TopRow(ALPINE, 2, 6, 110), TopRow(APP, 1, 2, 5000)]
    assert total == TopRow("", 3, 8, 5110)
    assert by_bytes == [TopRow(APP, 1, 2, 5000)]
    assert clients == [TopRow("10.0.0.7", 2, 7, 5100), TopRow("10.0.0.8", 1, 0, 0)]
    assert agents == [TopRow("docker", 3, 0, 0)]


async def test_pulls_of_one_upstream_alone(books: LedgerFile) -> None:
    await books.add(Batch(pulls=[pull(NOW), pull(NOW, APP, upstream="ghcr.io")]))

    rows, total = await books.top("image", NOW - 10, "pulls", 10, "ghcr.io")

    assert rows == [TopRow(APP, 1, 0, 0)]
    assert total.pulls == 1


async def test_nothing_is_nothing(books: LedgerFile) -> None:
    assert await books.top("image", NOW, "pulls", 10) == ([], TopRow("", 0, 0, 0))
    assert (await books.kept("docker.io", "alice", 0.0, NOW)).pulls == []


async def test_what_is_too_old_is_forgotten(books: LedgerFile) -> None:
    await books.add(
        Batch(
            pulls=[pull(NOW), pull(NOW - KEPT_SECONDS - 1)],
            served=[ServedRow(NOW - KEPT_SECONDS - 7200, "image", ALPINE, 1, 1)],
            events=[EventRow(NOW - KEPT_SECONDS - 1, "docker.io", "level", "old")],
        )
    )

    await books.prune(NOW)

    assert (await books.kept("docker.io", "alice", 0.0, NOW)).pulls == [pull(NOW)]
    assert await books.events(10, NOW) == []
    assert (await books.top("image", 0.0, "pulls", 10))[1] == TopRow("", 1, 0, 0)


async def test_what_is_too_much_is_forgotten(books: LedgerFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_ROWS", 3)
    await books.add(Batch(pulls=[pull(NOW + number) for number in range(10)]))

    await books.prune(NOW + 10)

    assert len((await books.kept("docker.io", "alice", 0.0, NOW + 10)).pulls) == 3
