"""The books of all quotas and who keeps them, put together. They live as long as the process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack

from proxy.clock import Clock
from proxy.config import QuotaOptions
from proxy.metrics import Metrics
from proxy.policy.quota.account import Account
from proxy.policy.quota.governor import Rules
from proxy.quota.books import Books
from proxy.quota.events import Events
from proxy.quota.governor import Governor
from proxy.quota.probe import Probed, Prober
from proxy.quota.report import Report
from proxy.quota.savings import Savings
from proxy.quota.traffic import Traffic
from proxy.quota.watch import Watch
from proxy.store.index import Index
from proxy.store.index.ledger import LedgerFile


class Quotas:
    """What is known and done about pull quotas: `start` once the store is open, `aclose` while it still is."""

    def __init__(self, options: QuotaOptions, index: Index, metrics: Metrics, clock: Clock) -> None:
        self._clock = clock
        self._probe_interval = options.probe
        self._file = LedgerFile(index)
        self.events = Events(clock)
        self.traffic = Traffic(self.events, clock)
        self.books = Books(index, self._file, self.events, self.traffic, clock, lambda: self.savings.keep())
        self.savings = Savings(index, self.traffic, self.books.pulls, metrics.fetched_bytes, clock)
        self.governor = Governor(rules_of(options), self.events, metrics, clock)
        self.watch = Watch(self.books, self.governor, self.events, clock)
        self._closing = AsyncExitStack()

    async def start(self) -> None:
        """Read the books, and keep them from now on."""
        for keeper in (self.books, self.watch):
            self._closing.push_async_callback(keeper.aclose)
            await keeper.start()
        self._closing.push_async_callback(self.governor.aclose)

    async def load(self) -> None:
        """Read what is known of the accounts that are there now; of those that come later it is read then."""
        await self.books.load()
        self.watch.take_for_granted()

    async def aclose(self) -> None:
        """Write down what is left."""
        await self._closing.aclose()

    def apply(self, options: QuotaOptions) -> None:
        """Go on with these settings."""
        self.governor.rules = rules_of(options)
        self._probe_interval = options.probe

    def prober(self, upstreams: Callable[[], Iterable[Probed]]) -> Prober:
        """Asks these upstreams when nothing was heard of their quotas."""
        return Prober(upstreams, lambda: self._probe_interval, self._clock)

    def report(self, accounts: Callable[[], Iterable[Account]]) -> Report:
        """Tells of these accounts."""
        return Report(accounts, self.governor, self.savings, self.events, self.books, self._file, self._clock)


def rules_of(options: QuotaOptions) -> Rules:
    """The governor's rules by the configuration."""
    return Rules(
        enabled=options.governor,
        careful=options.careful.amount / 100,
        tight=options.tight.amount / 100,
        reserve=options.reserve.amount / 100,
        important=options.important,
        unimportant=options.unimportant,
        wait=options.wait,
    )
