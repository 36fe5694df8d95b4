"""What can be made to go wrong, or slow, while the CDN sends a blob."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field


class Cut(Exception):
    """The connection is to be aborted here."""


@dataclass(slots=True)
class Hold:
    """A gate in a blob: bytes up to `after` pass, the rest waits until it is opened."""

    after: int
    opened: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Faults:
    """Faults by digest, and one speed for all; `reset` ends them all."""

    bytes_per_second: float | None = None
    holds: dict[str, Hold] = field(default_factory=dict)
    cuts: dict[str, int] = field(default_factory=dict)
    cuts_left: Counter[str] = field(default_factory=Counter)

    def cut(self, digest: str, after: int, times: int) -> None:
        self.cuts[digest], self.cuts_left[digest] = after, times

    def hold(self, digest: str, after: int) -> None:
        self.holds[digest] = Hold(after)

    def release(self, digest: str) -> None:
        if hold := self.holds.pop(digest, None):
            hold.opened.set()

    def reset(self) -> None:
        self.bytes_per_second = None
        self.cuts_left.clear()
        for digest in list(self.holds):
            self.release(digest)

    async def admit(self, digest: str, sent: int, size: int) -> int:
        """Return how many of the next `size` bytes of a response may go now; wait, or raise `Cut`, as was asked.

        `sent` counts the bytes of this response, not the offset in the blob: a resumed fetch is a new response.
        """
        if self.cuts_left[digest] > 0:
            size = min(size, self.cuts[digest] - sent)
            if size <= 0:
                self.cuts_left[digest] -= 1
                raise Cut
        if hold := self.holds.get(digest):
            if sent >= hold.after:
                await hold.opened.wait()
            else:
                size = min(size, hold.after - sent)
        if self.bytes_per_second is not None:
            await asyncio.sleep(size / self.bytes_per_second)
        return size
