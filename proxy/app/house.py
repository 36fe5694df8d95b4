"""What the admin side is given of the store and of the configuration that answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from proxy.app.generation import Shared
from proxy.housekeeping.house import House


def build_house(shared: Shared, windows: Callable[[], Mapping[str, float]]) -> House:
    """`windows` is asked each time: a reload may change them."""
    store = shared.store
    return House(
        store.index,
        store.blobs,
        store.usage,
        store.fills,
        store.leases,
        store.removal,
        store.evictor,
        store.scrub,
        store.keeper_lock,
        shared.negatives,
        windows,
        shared.clock,
    )
