"""An answer of the host that a server may give again by itself: what of it is counted, and until when it is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from proxy.oci.names import Digest, Repository
from proxy.policy.quota.purpose import Asker
from proxy.pull.outcome import Outcome
from proxy.server.access_log import Exchange


@dataclass(frozen=True, slots=True)
class Kept:
    """A plain hit. `edition` is that of the board when it was given; `until` is by the wall clock."""

    edition: int
    digest: Digest
    exchange: Exchange
    until: float

    def written(self) -> Any:
        """As JSON has it."""
        each = self.exchange
        assert each.repository is not None
        repository = [each.repository.registry, each.repository.name]
        asker = [each.asker.address, each.asker.agent]
        said = [each.method, each.kind, each.subject, each.status, each.sent, self.until]
        return [self.edition, str(self.digest), repository, asker, said]

    @classmethod
    def read(cls, record: Any) -> Self:
        """What was written."""
        edition, digest, repository, asker, (method, kind, subject, status, sent, until) = record
        exchange = Exchange(
            Asker(*asker),
            method,
            0.0,
            kind,
            Repository(*repository),
            subject,
            status,
            sent,
            Outcome("hit"),
        )
        return cls(edition, Digest.parse(digest), exchange, until)
