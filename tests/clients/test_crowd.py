"""Many clients at once on one cold image."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from .cache import Cache
from .conftest import Say
from .costs import assert_fetched_once
from .images import MIB, Image
from .processes import wait_until
from .pulls import pull
from .upstream import Upstream

pytestmark = pytest.mark.clients()

_CLIENTS = 32


def test_a_crowd_costs_one_fetch_and_the_last_to_come_is_served_while_it_runs(
    cache: Cache, upstream: Upstream, crowd: Image, say: Say
) -> None:
    first_layer = crowd.blobs[2]  # behind the config and busybox's layer
    # Slow, so that clients overtake the fill, and held before its end, so that it surely runs when the last one comes.
    upstream.throttle(32 * MIB)
    fetched_at_first_byte: list[int] = []

    def last_first_byte() -> None:
        fetched_at_first_byte.append(upstream.ledger.blob_bytes[first_layer.digest])
        upstream.throttle(None)
        upstream.release(first_layer.digest)

    say(f"{_CLIENTS} clients pull {crowd.size // MIB} MiB")
    begin = time.monotonic()
    with ThreadPoolExecutor(_CLIENTS) as clients, upstream.held(first_layer.digest, after=64 * MIB):
        pulls = [clients.submit(pull, cache.port, crowd) for _ in range(_CLIENTS - 1)]
        wait_until(lambda: upstream.ledger.blob_bytes[first_layer.digest] > 0, "the fill of the first layer runs")
        last = clients.submit(pull, cache.port, crowd, watched=first_layer.digest, on_first_byte=last_first_byte)
        pulls.append(last)
        received = [each.result() for each in pulls]
    say(f"done in {time.monotonic() - begin:.1f} s")

    assert fetched_at_first_byte[0] < first_layer.size, "the last client waited for the end of the fill"
    # Each client has checked every digest; and all came from one fetch of each thing.
    assert [set(each) for each in received] == [{blob.digest for blob in crowd.blobs}] * _CLIENTS
    assert_fetched_once(upstream.ledger, crowd)
