"""What goes wrong with the fake hub goes wrong as told: over real sockets, at the right byte, as often as asked."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.eventually import eventually
from tests.fake_hub import Answer, FakeHub, HubClient, at

REPOSITORY = "library/alpine"
BIG = 3_000_000


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with FakeHub() as hub:
        yield hub


@pytest.fixture
async def client(hub: FakeHub) -> AsyncIterator[HubClient]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield HubClient(hub, session, REPOSITORY)


@pytest.fixture
def blob(hub: FakeHub) -> str:
    digest = hub.add_synthetic_blob(BIG, seed=7)
    hub.link_blob(REPOSITORY, digest)
    return digest


# Faults


async def test_a_held_blob_stops_after_so_many_bytes_until_it_is_released(
    hub: FakeHub, client: HubClient, blob: str
) -> None:
    gate = hub.hold(blob, after_bytes=1000)
    pull = asyncio.create_task(client.send("GET", await client.location(blob)))
    await hub.wait_held(blob)

    assert hub.bytes_sent(blob) == 1000
    assert not pull.done()
    gate.release()
    assert len((await pull).body) == BIG
    assert hub.held() == 0


async def test_a_cut_blob_breaks_after_so_many_bytes_as_often_as_asked(
    hub: FakeHub, client: HubClient, blob: str
) -> None:
    hub.cut(blob, after_bytes=200_000, times=2)
    location = await client.location(blob)

    for _ in range(2):
        with pytest.raises(aiohttp.ClientError):
            await client.send("GET", location)
    assert hub.bytes_sent(blob) == 400_000
    assert len((await client.send("GET", location)).body) == BIG


async def test_bytes_sent_before_a_cut_do_arrive(hub: FakeHub, blob: str) -> None:
    hub.direct_blobs = True
    hub.cut(blob, after_bytes=200_000)
    async with aiohttp.ClientSession() as session:
        token = await HubClient(hub, session, REPOSITORY).token()
    host, port = urlsplit(hub.url).netloc.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    request = f"GET /v2/{REPOSITORY}/blobs/{blob} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
    writer.write(request.encode())

    received = b""
    with pytest.raises(ConnectionResetError):
        while piece := await reader.read(100_000):
            received += piece
    writer.close()

    assert len(received.partition(b"\r\n\r\n")[2]) == 200_000


async def test_a_gate_can_break_the_connections_it_holds(hub: FakeHub, client: HubClient, blob: str) -> None:
    gate = hub.hold(blob, after_bytes=10)
    location = await client.location(blob)
    pull = asyncio.create_task(client.send("GET", location))
    await hub.wait_held(blob)
    gate.cut()

    with pytest.raises(aiohttp.ClientError):
        await pull
    assert len((await client.send("GET", location)).body) == BIG


async def test_a_truncated_blob_breaks_its_promise_unless_no_length_was_promised(
    hub: FakeHub, client: HubClient, blob: str
) -> None:
    hub.truncate(blob, at=1000, times=2)
    location = await client.location(blob)

    with pytest.raises(aiohttp.ClientPayloadError):
        await client.send("GET", location)
    hub.no_content_length(blob)
    assert len((await client.send("GET", location)).body) == 1000
    hub.heal()
    hub.truncate(blob, at=1000, honest_length=True)
    assert len((await client.send("GET", location)).body) == 1000


async def test_bodies_can_be_wrong_in_other_ways(hub: FakeHub, client: HubClient, blob: str) -> None:
    right = hub.content_of(blob).read(0, BIG)
    location = await client.location(blob)

    hub.corrupt(blob, at_byte=5)
    wrong = (await client.send("GET", location)).body
    assert [position for position in range(BIG) if wrong[position] != right[position]] == [5]
    hub.heal()
    hub.no_range(blob)
    hub.gzip_encode(blob)
    reply = await client.send("GET", location, Range="bytes=5-")
    assert (reply.status, reply.body == right, reply.headers["Content-Encoding"]) == (200, True, "gzip")


async def test_failures_come_as_often_as_asked_and_to_whom_they_are_for(
    hub: FakeHub, client: HubClient, blob: str
) -> None:
    image = hub.add_image(REPOSITORY, "latest")
    hub.fail("cdn", 503, times=1)
    hub.fail(at("manifest", method="HEAD", reference="latest"), 500, retry_after=7, body=b"oops")

    location = await client.location(blob)
    assert [(await client.send("GET", location)).status for _ in range(2)] == [503, 200]
    failed = await client.ask("manifests/latest", method="HEAD")
    assert (failed.status, failed.headers["Retry-After"]) == (500, "7")
    assert (await client.ask("manifests/latest")).body == image.body
    with pytest.raises(ValueError, match="no such target: 'manifests'"):
        hub.fail("manifests")


async def test_garbage_is_no_http_or_no_json(hub: FakeHub, client: HubClient) -> None:
    image = hub.add_image(REPOSITORY, "latest")
    hub.garbage("token", b'{"token": ', times=1)
    assert (await client.ask_token()).body == b'{"token": '

    token = await client.token()
    hub.garbage(image.digest)
    with pytest.raises(aiohttp.ClientError):
        await client.ask(f"manifests/{image.digest}", token=token)


async def test_digest_headers_can_lie_or_lack(hub: FakeHub, client: HubClient) -> None:
    hub.add_image(REPOSITORY, "latest")

    hub.wrong_digest_header("manifest")
    lying = await client.ask("manifests/latest", method="HEAD")
    hub.no_digest_header("manifest")
    silent = await client.ask("manifests/latest", method="HEAD")

    assert lying.headers["Docker-Content-Digest"] == "sha256:" + "0" * 64
    assert (silent.status, "Docker-Content-Digest" in silent.headers) == (200, False)


async def test_redirects_can_lead_astray(hub: FakeHub, client: HubClient, blob: str) -> None:
    location = await client.location(blob)
    hub.redirect_loop("cdn")
    hub.redirect_to("blob", f"{hub.stranger_url}/x")
    hub.refuse_head_blobs(405)

    assert (await client.send("GET", location)).headers["Location"] == location
    astray = await client.location(blob)
    assert urlsplit(astray).hostname != urlsplit(hub.url).hostname
    await client.send("GET", astray, Authorization="Bearer secret")
    assert hub.violations == ["Authorization was sent to a stranger"]


async def test_any_answer_can_be_changed_or_replaced(hub: FakeHub, client: HubClient) -> None:
    hub.realm = f"{hub.stranger_url}/token"
    hub.change("ping", lambda answer: answer.headers.add("www-authenticate", 'Basic realm="x"'), times=1)
    challenges = (await client.send("GET", f"{hub.url}/v2/")).headers.getall("Www-Authenticate")
    rule = hub.replace(at("ping"), lambda _: Answer(204))

    assert challenges == [f'Bearer realm="{hub.stranger_url}/token",service="registry.docker.io"', 'Basic realm="x"']
    assert (await client.send("GET", f"{hub.url}/v2/")).status == 204
    assert rule.used == 1


async def test_one_listener_can_be_gone_alone(hub: FakeHub, client: HubClient, blob: str) -> None:
    location = await client.location(blob)
    await hub.gone("cdn")

    with pytest.raises(aiohttp.ClientConnectorError):
        await client.send("GET", location)
    assert (await client.ask(f"blobs/{blob}")).status == 307


async def test_a_hub_that_is_gone_refuses_connections_and_comes_back_where_it_was(
    hub: FakeHub, client: HubClient, blob: str
) -> None:
    url = hub.url
    hub.hold(blob)
    pull = asyncio.create_task(client.send("GET", await client.location(blob)))
    await hub.wait_held(blob)

    await hub.gone()
    with pytest.raises(aiohttp.ClientError):
        await pull
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.send("GET", f"{url}/v2/")
    await hub.back()
    assert hub.url == url
    assert (await client.send("GET", f"{url}/v2/")).status == 401


async def test_closing_is_quick_while_requests_hang() -> None:
    async with aiohttp.ClientSession() as session:
        async with FakeHub() as hub:
            hub.hang("any")
            pulls = [asyncio.create_task(session.get(f"{hub.url}/v2/")) for _ in range(3)]
            await hub.wait_held(count=3)
            before = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - before < 0.5
        results = await asyncio.gather(*pulls, return_exceptions=True)
    assert all(isinstance(result, aiohttp.ClientError) for result in results)


async def test_a_held_request_is_given_up_when_its_client_leaves(hub: FakeHub, client: HubClient) -> None:
    hub.hang("ping")
    pull = asyncio.create_task(client.send("GET", f"{hub.url}/v2/"))
    await hub.wait_held("ping")
    pull.cancel()

    await eventually(lambda: hub.held("ping") == 0)


# Waiting


async def test_eventually_names_the_state_that_never_came() -> None:
    async def never() -> bool:
        return False

    with pytest.raises(AssertionError, match="the moon is blue"):
        await eventually(never, timeout=0.01, label="the moon is blue")
    with pytest.raises(AssertionError, match="== 2"):
        await eventually(lambda: sum([]) == 2, timeout=0.01)
