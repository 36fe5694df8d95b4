"""How far an open blob is sent without waiting for the disk: as far as it is in the page cache, and no further."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.store import pages
from proxy.store.blobs import StoredBlob
from tests.blob_rig import MIB
from tests.cache_rig import Clock
from tests.scrub_rig import stand

CONTENT = bytes(30 * MIB)


class PageCache:
    """Holds what is read, and what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
        self.held = held
        self.read: list[tuple[int, int]] = []
        monkeypatch.setattr(pages, "is_resident", lambda fd, offset: offset < self.held)
        monkeypatch.setattr("proxy.store.blobs.read_through", self._read_through)

    def _read_through(self, fd: int, start: int, stop: int) -> None:
        self.read.append((start, stop))
        self.held = max(self.held, stop)


@pytest.fixture
async def blob(tmp_path: Path) -> AsyncIterator[StoredBlob]:
    async with stand(tmp_path, Clock()) as store:
        opened = await store.blobs.open(await store.put(CONTENT))
        assert opened is not None
        with opened:
            yield opened


async def ends(blob: StoredBlob, offset: int = 0) -> list[int]:
    """Where each part of it ends that is sent at once, in MiB."""
    found = []
    while offset < blob.size:
        offset = await blob.visible(offset)
        found.append(offset // MIB)
    return found


async def test_what_is_in_memory_is_sent_in_large_parts(blob: StoredBlob, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PageCache(monkeypatch, held=blob.size)
    assert (await ends(blob), cache.read) == ([16, 30], [])


async def test_what_is_in_memory_is_sent_before_the_disk_is_asked_for_more(
    blob: StoredBlob, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PageCache(monkeypatch, held=9 * MIB)
    assert await blob.visible(0) == 8 * MIB
    assert cache.read == []


async def test_what_is_not_in_memory_is_read_a_little_at_a_time(
    blob: StoredBlob, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PageCache(monkeypatch, held=9 * MIB)
    assert await ends(blob) == [8, 12, 16, 20, 24, 28, 30]
    assert cache.read[0] == (8 * MIB, 12 * MIB)
