"""The cache's own memory does not grow with blobs or clients."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from .cache import Cache
from .conftest import Say
from .images import MIB, Image
from .processes import wait_until
from .pulls import Connection, Received
from .upstream import Upstream

pytestmark = pytest.mark.clients()

_CLIENTS = 64


def test_sixty_four_clients_of_one_cold_gibibyte_fit_in_120_mebibytes(
    cache: Cache, upstream: Upstream, gigabyte: Image, say: Say
) -> None:
    layer = gigabyte.blobs[-1]
    started: list[int] = []

    def receive(number: int) -> Received:
        with Connection(cache.port) as client:
            client.get(f"/v2/{gigabyte.repository}/manifests/{gigabyte.tag}")
            return client.blob(
                f"/v2/{gigabyte.repository}/blobs/{layer.digest}",
                # Two of them look at what they get; the others would need the machine for themselves.
                verify=number < 2,
                on_first_byte=lambda: started.append(number),
            )

    say(f"{_CLIENTS} clients pull 1 GiB; idle {_mebibytes(cache)} MiB")
    with ThreadPoolExecutor(_CLIENTS) as clients:
        with upstream.held(layer.digest, after=32 * MIB):  # until all have joined the fill
            pulls = [clients.submit(receive, number) for number in range(_CLIENTS)]
            wait_until(lambda: len(started) == _CLIENTS, "every client has its first byte")
        begin = time.monotonic()
        received = [each.result() for each in pulls]
    say(f"done in {time.monotonic() - begin:.1f} s; peak {_mebibytes(cache)} MiB")

    assert {each.size for each in received} == {layer.size}
    assert {each.digest for each in received} == {layer.digest, None}
    assert upstream.ledger.blob_gets[layer.digest] == 1
    assert cache.peak_memory() < 120 * MIB


def _mebibytes(cache: Cache) -> int:
    return cache.peak_memory() // MIB
