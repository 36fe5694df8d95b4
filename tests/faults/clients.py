"""Clients that leave, stall, and talk nonsense; another client is served meanwhile or afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.blob_rig import KIB, partial_has, stored
from tests.eventually import eventually
from tests.faults.client import assert_harmless, bounded
from tests.faults.fault import Fault, Seen
from tests.faults.pulling import aftermath
from tests.faults.stand import Asked, Stand
from tests.raw_http import RawClient, raw_client

HALF = 512 * KIB
_Client = Callable[[RawClient, Stand], Awaitable[str]]
"""Misbehaves on a connection, and says what it saw."""


def _misbehaving(title: str, asked: Asked, behave: _Client, *, within: float = 10.0) -> Fault:
    """A client that misbehaves; what it saw is told in its own words."""

    async def run(stand: Stand) -> Seen:
        await stand.prepare(asked)
        before = await stand.cache.metrics()
        async with raw_client(stand.cache.url, receive_buffer=4096) as client, asyncio.timeout(within):
            said = await behave(client, stand)
        if asked is Asked.COLD_BLOB:
            stand.hub.release()
            await stored(stand.cache, stand.layer.digest)
        return await aftermath(stand, asked, said, before)

    return Fault(title, asked.value, within, run)


async def _begin(client: RawClient, stand: Stand) -> None:
    """Ask, and have half of the body on its way."""
    stand.hub.hold("cdn", HALF)
    client.ask("GET", stand.layer.path)
    status, _ = await client.head()
    assert status == 200
    await partial_has(stand.cache, stand.layer.digest, HALF)


async def _leaves(client: RawClient, stand: Stand) -> str:
    await _begin(client, stand)
    assert stand.layer.content.startswith(await client.read(1000))
    client.leave()
    return "it left after 1000 bytes"


async def _leaves_at_once(client: RawClient, stand: Stand) -> str:
    stand.hub.hang("cdn")
    client.ask("GET", stand.layer.path)
    await stand.hub.wait_held("cdn")
    client.leave()
    return "it left before the headers"


async def _takes_nothing(client: RawClient, stand: Stand) -> str:
    """While it does, another one gets it all."""
    await _begin(client, stand)
    other = asyncio.ensure_future(stand.pull(Asked.COLD_BLOB))
    fills = stand.cache.app.store.fills
    await eventually(lambda: [fill.readers for fill in fills] == [2], label="the other one reads along")
    stand.hub.release()
    got = await bounded(other, 10.0)
    assert_harmless(got, stand.layer.content)
    client.leave()
    return f"it took nothing; another client beside it: {got}"


async def _takes_little(client: RawClient, stand: Stand) -> str:
    client.ask("GET", stand.layer.path)
    await client.head()
    for offset in range(100):
        assert await client.read(1) == stand.layer.content[offset : offset + 1]
    got = await bounded(stand.pull(Asked.WARM_BLOB), 10.0)
    assert_harmless(got, stand.layer.content)
    client.leave()
    return f"it took a byte at a time; another client beside it: {got}"


async def _resets(client: RawClient, stand: Stand) -> str:
    client.ask("GET", stand.layer.path)
    await client.head()
    client.reset()
    return "it reset the connection"


async def _ends_its_side(client: RawClient, stand: Stand) -> str:
    client.ask("GET", stand.layer.path)
    client.half_close()
    status, _ = await client.head()
    assert (status, await client.read(stand.layer.size)) == (200, stand.layer.content)
    return "200, whole and right"


async def _no_http(client: RawClient, stand: Stand) -> str:
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
    answer = await client.rest()
    assert not answer or answer.split()[1] == b"400", answer[:100]
    return "400" if answer else "the connection was closed"


async def _pipelines(client: RawClient, stand: Stand) -> str:
    for _ in range(3):
        client.ask("GET", stand.layer.path)
    for _ in range(3):
        status, _ = await client.head()
        assert (status, await client.read(stand.layer.size)) == (200, stand.layer.content)
    return "three times 200, whole and right"


CLIENTS = (
    _misbehaving("the client leaves half-way", Asked.COLD_BLOB, _leaves),
    _misbehaving("the client leaves before the headers", Asked.COLD_BLOB, _leaves_at_once),
    _misbehaving("the client takes nothing of the body", Asked.COLD_BLOB, _takes_nothing),
    _misbehaving("the client takes a byte at a time", Asked.WARM_BLOB, _takes_little),
    _misbehaving("the client resets the connection", Asked.WARM_BLOB, _resets),
    _misbehaving("the client ends its side after the request", Asked.WARM_BLOB, _ends_its_side),
    _misbehaving("the client sends three requests at once", Asked.WARM_BLOB, _pipelines),
    _misbehaving("the client speaks TLS", Asked.WARM_BLOB, _no_http),
)
