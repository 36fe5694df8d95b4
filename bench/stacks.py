"""Stacks as py-spy records them, and where the time went in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

NUMBERED = re.compile(r"^thread \(\w+\): |^process \d+.*")
LOOP = "BaseEventLoop._run_once (asyncio/base_events.py)"  # what leads to it is the same for everything
WAITING = {"_worker (concurrent/futures/thread.py)", "Writer._run (proxy/store/index/writer.py)", "wait (threading.py)"}
"""Threads that py-spy takes for busy while they wait for work."""

Stack = tuple[str, ...]


@dataclass(slots=True)
class Node:
    """A function called by the one above it, and the samples in which it was."""

    name: str
    samples: int = 0
    callees: dict[str, Node] = field(default_factory=dict)

    def callee(self, name: str) -> Node:
        """Return the node of a function that this one calls."""
        return self.callees.setdefault(name, Node(name))


class Stacks:
    """What was sampled: each stack from the thread to the innermost function, and how often it was seen."""

    def __init__(self, folded: Iterable[str]) -> None:
        """Read lines of `process 7:"...";thread (0x8): name;function (file);function (file) COUNT`."""
        self._counts: Counter[Stack] = Counter()
        for line in folded:
            names, _, count = line.rpartition(" ")
            stack = _told(names.split(";"))
            if stack[-1] not in WAITING:
                self._counts[stack] += int(count)

    @property
    def samples(self) -> int:
        """How many there are."""
        return self._counts.total()

    def own(self) -> Counter[str]:
        """Samples by the innermost function."""
        return self._by(lambda stack: stack[-1:])

    def cumulative(self) -> Counter[str]:
        """Samples by every function of our own in the stack, once each."""
        return self._by(lambda stack: {name for name in stack if "(proxy/" in name})

    def tree(self) -> Node:
        """All stacks as one tree."""
        root = Node("all", self.samples)
        for stack, count in self._counts.items():
            node = root
            for name in stack:
                node = node.callee(name)
                node.samples += count
        return root

    def _by(self, names: Callable[[Stack], Iterable[str]]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for stack, count in self._counts.items():
            for name in names(stack):
                counts[name] += count
        return counts


def _told(names: list[str]) -> Stack:
    """Return a stack without numbers of threads and processes, and without what leads to the event loop."""
    thread, *rest = [told for name in names if (told := NUMBERED.sub("", name))]
    return (thread, *rest[rest.index(LOOP) if LOOP in rest else 0 :])
