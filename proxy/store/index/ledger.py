"""The books on disk: counted pulls, observations of quotas, what was served to whom, and what happened.

Rows are added in batches by the index's writer, and read by its readers; nothing here is in the way of a request. They
are kept for KEPT_SECONDS, and no more than MAX_ROWS of each. Times here are seconds since the epoch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from proxy.store.index import Index

KEPT_SECONDS: Final = 35 * 86400.0
MAX_ROWS: Final = 500_000
MAX_FETCHED: Final = 20_000
_HOUR: Final = 3600

Dimension = Literal["image", "client", "agent"]
Order = Literal["pulls", "bytes"]

_PULLED_BY: Final[dict[Dimension, str]] = {"image": "repository", "client": "client", "agent": "agent"}


class PullRow(NamedTuple):
    """A counted pull."""

    at: float
    upstream: str
    account: str
    repository: str
    reference: str
    client: str
    user: str | None
    agent: str
    why: str


class ObservationRow(NamedTuple):
    """What an upstream said of a quota."""

    at: float
    upstream: str
    account: str
    limit: int | None
    remaining: int | None
    window: int | None
    source: str | None
    by: str


class EventRow(NamedTuple):
    """Something that people want to know of."""

    at: float
    upstream: str
    kind: str
    text: str


class ServedRow(NamedTuple):
    """What went to clients in one hour: manifests that were answered, and body bytes."""

    at: float
    dimension: Dimension
    name: str
    answers: int
    bytes: int


class TopRow(NamedTuple):
    """Who, and how much."""

    name: str
    pulls: int
    answers: int
    bytes: int


@dataclass(slots=True)
class Batch:
    """Rows to add."""

    pulls: list[PullRow] = field(default_factory=list)
    observations: list[ObservationRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    served: list[ServedRow] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.pulls or self.observations or self.events or self.served)


@dataclass(frozen=True, slots=True)
class Kept:
    """What was written of one account: newest entries, oldest first, and what cost a pull at any time."""

    pulls: Sequence[PullRow]
    observations: Sequence[ObservationRow]
    fetched: Sequence[tuple[str, str]]


class LedgerFile:
    """The books of one cache folder. Methods raise sqlite3.Error."""

    def __init__(self, index: Index) -> None:
        self._index = index

    async def add(self, batch: Batch) -> None:
        """Write these rows."""
        served = [(int(row.at // _HOUR * _HOUR), *row[1:]) for row in batch.served]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(f"INSERT INTO pulls VALUES ({_places(PullRow)})", batch.pulls)
            connection.executemany(f"INSERT INTO observations VALUES ({_places(ObservationRow)})", batch.observations)
            connection.executemany(f"INSERT INTO events VALUES ({_places(EventRow)})", batch.events)
            connection.executemany(_ADD_SERVED, served)

        await self._index.write(work, remember=True)

    async def kept(self, upstream: str, account: str, since: float, now: float) -> Kept:
        """What was written since then of one account; what is of the future was written by a clock that was wrong."""
        whose = {"upstream": upstream, "account": account, "since": since, "now": now, "most": MAX_FETCHED}

        def work(connection: sqlite3.Connection) -> Kept:
            pulls = connection.execute(_KEPT.format(table="pulls"), whose).fetchall()
            observations = connection.execute(_KEPT.format(table="observations"), whose).fetchall()
            fetched = connection.execute(_FETCHED, whose).fetchall()
            return Kept(
                [PullRow(*row) for row in reversed(pulls)],
                [ObservationRow(*row) for row in reversed(observations)],
                [(repository, reference) for repository, reference in fetched],
            )

        return await self._index.query(work)

    async def events(self, count: int, now: float) -> list[EventRow]:
        """The last ones, newest first."""
        question = "SELECT * FROM events WHERE at <= ? ORDER BY at DESC, rowid DESC LIMIT ?"
        rows = await self._index.query(lambda connection: connection.execute(question, (now, count)).fetchall())
        return [EventRow(*row) for row in rows]

    async def top(
        self, dimension: Dimension, since: float, order: Order, count: int, upstream: str | None = None
    ) -> tuple[list[TopRow], TopRow]:
        """Who cost most since then, and the total of all; with an upstream, only the pulls of that are counted."""
        column = _PULLED_BY[dimension]
        values = {"since": since, "hour": since // _HOUR * _HOUR, "dimension": dimension, "upstream": upstream}
        question = _TOP.format(column=column)

        def work(connection: sqlite3.Connection) -> tuple[list[TopRow], TopRow]:
            ordered = f"{question} ORDER BY {order} DESC, answers DESC, name LIMIT {count}"
            rows = [TopRow(*row) for row in connection.execute(ordered, values)]
            sums = f"SELECT '', TOTAL(pulls), TOTAL(answers), TOTAL(bytes) FROM ({question})"
            name, *totals = connection.execute(sums, values).fetchone()
            return rows, TopRow(name, *map(int, totals))

        return await self._index.query(work)

    async def prune(self, now: float) -> None:
        """Forget what is too old, or too much."""

        def work(connection: sqlite3.Connection) -> None:
            for table, column in (("pulls", "at"), ("observations", "at"), ("events", "at"), ("served", "hour")):
                connection.execute(f"DELETE FROM {table} WHERE {column} < ?", (now - KEPT_SECONDS,))
                connection.execute(_TOO_MANY.format(table=table, column=column), {"most": MAX_ROWS})

        await self._index.write(work, remember=True)


def _places(row: type[PullRow] | type[ObservationRow] | type[EventRow]) -> str:
    return ", ".join("?" * len(row._fields))


_ADD_SERVED: Final = """
INSERT INTO served (hour, dimension, name, answers, bytes) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (hour, dimension, name) DO UPDATE SET answers = answers + excluded.answers, bytes = bytes + excluded.bytes
"""
_KEPT: Final = """
SELECT * FROM {table} WHERE upstream = :upstream AND account = :account AND at BETWEEN :since AND :now
ORDER BY at DESC, rowid DESC LIMIT :most
"""
_FETCHED: Final = """
SELECT repository, reference FROM pulls WHERE upstream = :upstream AND account = :account
GROUP BY repository, reference ORDER BY MAX(at) DESC LIMIT :most
"""
_TOP: Final = """
SELECT name, SUM(pulls) AS pulls, SUM(answers) AS answers, SUM(bytes) AS bytes FROM (
    SELECT {column} AS name, 1 AS pulls, 0 AS answers, 0 AS bytes FROM pulls
        WHERE at >= :since AND (:upstream IS NULL OR upstream = :upstream)
    UNION ALL
    SELECT name, 0, answers, bytes FROM served
        WHERE hour >= :hour AND dimension = :dimension AND :upstream IS NULL)
GROUP BY name
"""
_TOO_MANY: Final = """
DELETE FROM {table} WHERE {column} < (SELECT {column} FROM {table} ORDER BY {column} DESC LIMIT 1 OFFSET :most - 1)
"""
