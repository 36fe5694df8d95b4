"""The short forms of the long runs (`python -m endurance`): real processes, under load, killed and left alone."""

from __future__ import annotations

from pathlib import Path

from endurance import kill_loop, million, soak


def say(_: str) -> None:
    """Nobody listens here."""


async def test_ten_kills_under_load_leave_nothing_wrong(tmp_path: Path) -> None:
    outcome = await kill_loop.KillLoop(tmp_path, kill_loop.SHORT, 1, say).run()

    assert outcome.failures == []
    assert outcome.kills == kill_loop.SHORT.kills
    assert outcome.blobs_hashed > 0
    assert outcome.partials_resumed > 0, "no kill met a fill: the loop shows nothing"


async def test_twenty_seconds_of_everything_at_once_leave_nothing_wrong(tmp_path: Path) -> None:
    outcome = await soak.Soak(tmp_path, soak.SHORT, 1, say).run()

    assert outcome.failures == []
    assert outcome.troubles.total() > 0
    assert outcome.findings.complete > 0


async def test_thousands_of_entries_are_found_listed_and_evicted(tmp_path: Path) -> None:
    outcome = await million.Million(tmp_path, million.SHORT, 1, say).run()

    assert outcome.failures == []
