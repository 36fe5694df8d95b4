"""Every fault of the table: see `tests.faults`."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.blob_rig import small_pauses
from tests.fake_hub import FakeHub
from tests.faults.answers import ANSWERS
from tests.faults.clients import CLIENTS
from tests.faults.connections import CONNECTIONS
from tests.faults.disk import DISK
from tests.faults.fault import Fault, Seen
from tests.faults.manifests import MANIFESTS
from tests.faults.processes import PROCESSES
from tests.faults.stand import RigWithoutScrub, Stand
from tests.faults.table import PAGE, line, page
from tests.faults.transfers import TRANSFERS

SECTIONS = {
    "Transfers": TRANSFERS,
    "What the upstream answers": ANSWERS,
    "Manifests": MANIFESTS,
    "The way to the upstream": CONNECTIONS,
    "The disk": DISK,
    "The process": PROCESSES,
    "Clients": CLIENTS,
}
FAULTS = [fault for faults in SECTIONS.values() for fault in faults]
WRITES = bool(os.environ.get("PULLTHROUGH_WRITE_FAULTS"))


@pytest.fixture
async def stand(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    """An upstream and a cache whose patience is short."""
    small_pauses(monkeypatch)
    async with RigWithoutScrub(hub.url, tmp_path / "cache", idle_timeout=0.4) as cache, AsyncExitStack() as after:
        yield Stand(hub, cache, tmp_path, after)


@pytest.fixture(scope="module")
def seen() -> dict[str, Seen]:
    """What the faults so far have shown."""
    return {}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_fault(fault: Fault, stand: Stand, seen: dict[str, Seen], caplog: pytest.LogCaptureFixture) -> None:
    seen[str(fault)] = shown = await fault.run(stand)

    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.CRITICAL] == []
    if not WRITES:
        assert line(fault, shown) in PAGE.read_text().splitlines(), "docs/faults.md says otherwise: write it anew"


def test_the_page_is_what_was_seen(seen: dict[str, Seen]) -> None:
    """Its rows are compared one by one; here, that it has these and no others, and says what it is."""
    if WRITES:
        assert not (missing := [str(fault) for fault in FAULTS if str(fault) not in seen]), f"not seen: {missing}"
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(SECTIONS, seen))
    rows = [row for row in PAGE.read_text().splitlines() if row.startswith("| ") and not row.startswith("| fault |")]
    assert len(FAULTS) >= 45
    assert [row.split(" | ")[:3] for row in rows] == [
        [f"| {fault.title}", fault.asked, f"{fault.within:g}"] for fault in FAULTS
    ]
