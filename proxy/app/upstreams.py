"""The upstreams that are in use, each with its connections, tokens and limits.

One whose settings a reload leaves as they were is kept: what it knows of quota and refusals was paid for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from proxy.app.errors import StartError
from proxy.clock import Clock
from proxy.config import UpstreamOptions
from proxy.metrics import Metrics
from proxy.policy.quota.account import Account
from proxy.upstream.client import Upstream

Accounts = Callable[[str, str | None], Account]
"""What is known of the quota of an account at an upstream, by their names."""


class Upstreams:
    """Gives out upstreams, and closes each when the last who has it gives it back."""

    def __init__(self, accounts: Accounts, metrics: Metrics, clock: Clock) -> None:
        self._accounts = accounts
        self._metrics = metrics
        self._clock = clock
        self._users: dict[Upstream, int] = {}
        self._options: dict[Upstream, UpstreamOptions] = {}

    def __contains__(self, upstream: Upstream) -> bool:
        """Whether somebody has it."""
        return upstream in self._users

    async def take(self, options: UpstreamOptions) -> Upstream:
        """The upstream with these settings; upstream is not asked, it may be down. Raises StartError."""
        wanted = _own(options)
        known = next((each for each, its in self._options.items() if its == wanted), None)
        if known is not None and wanted.ca is None:  # What a file of certificates holds may have changed.
            self._users[known] += 1
            return known
        self._metrics.expect(options.name)
        account = self._accounts(options.name, options.username)
        upstream = Upstream(options, self._metrics, self._clock, account)
        try:
            await upstream.start()
        except OSError as error:
            raise StartError(f"cannot use the certificates (ca) of upstream {upstream.name}: {error}") from error
        self._users[upstream], self._options[upstream] = 1, wanted
        return upstream

    async def give_back(self, upstream: Upstream) -> None:
        """Its user has ended."""
        self._users[upstream] -= 1
        if not self._users[upstream]:
            del self._users[upstream], self._options[upstream]
            if all(each.name != upstream.name for each in self._users):
                self._metrics.forget(upstream.name)
            await upstream.aclose()


def _own(options: UpstreamOptions) -> UpstreamOptions:
    """Without what matters to who asks the upstream, and not to itself."""
    return replace(options, tags=None, fallbacks=())
