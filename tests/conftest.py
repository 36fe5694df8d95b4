"""What every test has: a fake Docker Hub, a cache in front of it, and no network but loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cache_rig import BESIDE, CacheRig
from tests.fake_hub import FakeHub


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several workers share the tests by file, and those that share daemons, browsers or a table by folder."""
    root = config.rootpath / "tests"
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.path.relative_to(root).parts[0]))


SERVED_BOTH_WAYS = frozenset(
    {
        "test_bad_input",
        "test_blobs",
        "test_collapse",
        "test_contract",
        "test_crash",
        "test_disk_faults",
        "test_fill_faults",
        "test_fill_resume",
        "test_images",
        "test_manifests",
        "test_ranges",
        "test_stale",
    }
)
"""What clients get must be right whoever serves them: the cache itself, or a process beside it."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in SERVED_BOTH_WAYS:
        metafunc.parametrize("served_by", ["host", "beside"], indirect=True)


@pytest.fixture(autouse=True)
def served_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whom clients are served, in the tests that are run both ways."""
    if getattr(request, "param", "host") == "beside":
        monkeypatch.setenv(BESIDE, "1")


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Connecting anywhere else fails the test: no test depends on the network."""
    connect = asyncio.selector_events.BaseSelectorEventLoop.sock_connect

    async def guarded(self: Any, sock: Any, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(("127.", "::1")):
            pytest.fail(f"a test connects to {address[0]}")
        await connect(self, sock, address)

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", guarded)
    yield


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    """A Docker-Hub-like upstream."""
    async with FakeHub() as running:
        yield running


@pytest.fixture
async def cache(hub: FakeHub, tmp_path: Path) -> AsyncIterator[CacheRig]:
    """A cache of that upstream, with its account."""
    async with CacheRig(hub.url, tmp_path / "cache") as running:
        yield running
