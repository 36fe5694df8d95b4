"""One line a request: who asked for what, how it was answered, what it cost.

Lines are gathered and written a few times a second by a thread, so that neither formatting policy nor a slow terminal
is in the way of a response. Nothing that could hold a secret is written: no header, no query, no upstream URL.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Final, Literal, TextIO

from proxy.oci.names import Repository
from proxy.policy.quota.purpose import Asker
from proxy.pull.outcome import Outcome

_FLUSH_SECONDS: Final = 0.2
_MAX_LINES: Final = 100_000
"""Lines kept for a stream that takes none; the oldest go first. A log that nobody reads must not fill the memory."""


@dataclass(slots=True)
class Exchange:
    """A request and its answer, as far as they have come."""

    asker: Asker
    method: str
    started: float
    """By time.perf_counter()."""
    kind: Literal["manifest", "blob", "listing", "ping", "other"] = "other"
    repository: Repository | None = None
    subject: str = "-"
    """Repository and reference as they were parsed; of a request that could not be parsed, nothing."""
    status: int = 0
    sent: int = 0
    """Body bytes."""
    outcome: Outcome | None = None
    aborted: bool = False
    first_byte_seconds: float | None = None
    error: str | None = None

    def again(self, address: str) -> Exchange:
        """The same request of perhaps another client, answered alike and at once."""
        return replace(self, asker=Asker(address, self.asker.agent), first_byte_seconds=0.0, aborted=False)

    def moved(self, count: int) -> None:
        """So many more body bytes were sent."""
        self.sent += count


Style = Literal["text", "json"]


class Lines:
    """Makes the lines."""

    def __init__(self, style: Style) -> None:
        self._format = _json_line if style == "json" else _text_line
        self._stamp, self._stamped = "", 0

    def line(self, exchange: Exchange, seconds: float) -> str:
        """What is written of an exchange that took so long, if it is answered now."""
        now = int(time.time())
        if now != self._stamped:
            self._stamp, self._stamped = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)), now
        return self._format(self._stamp, exchange, seconds)


class AccessLog(Lines):
    """Writes exchanges to a text stream."""

    def __init__(self, stream: TextIO, style: Style) -> None:
        super().__init__(style)
        self._stream = stream
        self._lines: deque[str] = deque(maxlen=_MAX_LINES)
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None

    def write(self, exchange: Exchange, seconds: float) -> None:
        """Take note of an answered request that took so long."""
        self.append(self.line(exchange, seconds))

    def append(self, lines: str) -> None:
        """These are more lines, or one."""
        self._lines.append(lines)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush)

    async def aclose(self) -> None:
        """Write what is left."""
        if self._timer is not None:
            self._timer.cancel()
        while self._writing is not None or self._lines:
            if self._writing is not None:
                await asyncio.wait([self._writing])
            self._writing = None
            if self._lines:
                self._flush()

    def _flush(self) -> None:
        self._timer = None
        if self._writing is not None and not self._writing.done():
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush)
            return
        text = "".join(self._lines)
        self._lines.clear()
        self._writing = asyncio.get_running_loop().run_in_executor(None, self._write, text)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            return  # Nobody reads the log any more; requests are answered all the same.


def _text_line(moment: str, exchange: Exchange, seconds: float) -> str:
    outcome = exchange.outcome
    status = outcome.cache_status.removeprefix("pullthrough; ") if outcome else "-"
    error = f" error={exchange.error}" if exchange.error else ""
    cost = f" counted={outcome.counted}" if outcome and outcome.counted else ""
    left = " client-left" if exchange.aborted else ""
    return (
        f"{moment} {exchange.asker.address} {exchange.method} {exchange.kind} {exchange.subject} {exchange.status} "
        f"{exchange.sent}B {seconds * 1000:.1f}ms [{status}]{cost}{error}{left}\n"
    )


def _json_line(moment: str, exchange: Exchange, seconds: float) -> str:
    outcome = exchange.outcome
    record = {
        "time": moment,
        "peer": exchange.asker.address,
        "method": exchange.method,
        "kind": exchange.kind,
        "subject": exchange.subject,
        "status": exchange.status,
        "bytes": exchange.sent,
        "seconds": round(seconds, 6),
        "cache_status": outcome.cache_status if outcome else None,
        "counted": outcome.counted if outcome else 0,
        "error": exchange.error,
        "client_left": exchange.aborted,
    }
    return json.dumps(record) + "\n"
