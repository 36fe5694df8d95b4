"""The catalogue: which repositories the cache holds something of. Off unless the configuration says otherwise.

Names are those a client can ask this listener for: `library/alpine` of the default upstream, `ghcr.io/owner/app` of
another. What would be refused is not listed (OCI distribution spec leaves `_catalog` to registries).
"""

from __future__ import annotations

from typing import Final

from proxy.oci.names import Repository
from proxy.pull.admission import Doorkeeper
from proxy.store.index import Index

_STEP: Final = 200


class Catalog:
    """Lists in the order of registry and name."""

    def __init__(self, registries: tuple[str, ...], index: Index, door: Doorkeeper) -> None:
        self._registries = registries
        self._index = index
        self._door = door

    async def page(self, count: int, after: str) -> tuple[list[str], bool]:
        """At most `count` names that come after this one, and whether there are more."""
        found: list[str] = []
        last = self._full(after) if after else ""
        while len(found) <= count:
            step = await self._index.repositories(last, _STEP)
            found += [self._shown(each) for each in step if self._door.is_known_to_be_served(each)]
            if len(step) < _STEP:
                break
            last = str(step[-1])
        return found[:count], len(found) > count

    def _shown(self, repository: Repository) -> str:
        return repository.name if repository.registry == self._registries[0] else str(repository)

    def _full(self, shown: str) -> str:
        return shown if shown.partition("/")[0] in self._registries else f"{self._registries[0]}/{shown}"
