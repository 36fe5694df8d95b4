"""What a server counts by itself: said to the host, which keeps the books, a few times a second and when it asks.

answers    those that were given again, as `server.repeats` sums them up
lines      of the access log, which the host writes: two writers would cut up each other's lines
refused    connections, and why
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from proxy.oci.names import Digest, Repository
from proxy.policy.quota.purpose import Asker
from proxy.server.access_log import Lines, Style
from proxy.server.repeats import Answers

SAY_SECONDS: Final = 0.2
_ROWS: Final = 64
"""In a message. A row is a kilobyte or two at most, by what a request and the names in it may be."""


class Counts:
    """Used on the event loop. `say` is called when there is something to `take`."""

    def __init__(self, say: Callable[[], None]) -> None:
        self._say = say
        self._rows: list[tuple[str, Any]] = []
        self._lines: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def connection_refused(self, reason: str) -> None:
        """A connection of a client was refused, or ended before its time."""
        self._refused[reason] += 1
        self._wait()

    def log(self, line: str) -> None:
        """This is one more line of the access log."""
        self._lines[line] += 1
        self._wait()

    def answered(self, batch: Sequence[Answers]) -> None:
        """These answers were given again."""
        self._rows += [("answers", _written(each)) for each in batch]
        self._wait()

    def take(self) -> list[bytes]:
        """All since the last time, in messages for `read`."""
        rows = [*self._rows, *(("line", each) for each in self._lines.items())]
        rows += [("refused", each) for each in self._refused.items()]
        self._rows, self._lines, self._refused = [], Counter(), Counter()
        return [json.dumps(rows[start : start + _ROWS]).encode() for start in range(0, len(rows), _ROWS)]

    def close(self) -> None:
        """Nothing more is counted."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SAY_SECONDS, self._due)

    def _due(self) -> None:
        self._timer = None
        self._say()


class CountedLog(Lines):
    """The access log of a server. Each second has few different lines, and many of each."""

    def __init__(self, style: Style, append: Callable[[str], None]) -> None:
        super().__init__(style)
        self.append = append


def add(
    content: bytes,
    answered: Callable[[Iterable[Answers]], None],
    log: Callable[[str], None],
    refused: Callable[[str, int], None],
) -> None:
    """Hand on what a server has said."""
    rows: dict[str, list[Any]] = {"answers": [], "line": [], "refused": []}
    for name, row in json.loads(content):
        rows[name].append(row)
    answered(_read(rows["answers"]))
    for line, times in rows["line"]:
        log(line * times)
    for reason, times in rows["refused"]:
        refused(reason, times)


def _written(each: Answers) -> list[Any]:
    repository = [each.repository.registry, each.repository.name]
    return [each.kind, each.method, each.status, repository, each.asker, str(each.digest), each.times, each.sent]


def _read(rows: Iterable[list[Any]]) -> Iterator[Answers]:
    for kind, method, status, repository, asker, digest, times, sent in rows:
        yield Answers(kind, method, status, Repository(*repository), Asker(*asker), Digest.parse(digest), times, sent)
