"""No password, token or signed URL in anything that people or machines read (DESIGN promise 2; PROTOCOL 8.20)."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator

import pytest

from proxy.oci.errors import RegistryError
from proxy.oci.names import Digest
from tests.fake_hub import FakeHub, Recorded, at
from tests.upstream_rig import LATEST, PAT, REPOSITORY, RiggedUpstream, asking_as_account

Spoil = Callable[[FakeHub], object]

SPOILS: dict[str, Spoil] = {
    "nothing": lambda hub: None,
    "a wrong password": lambda hub: setattr(hub, "pat", "another"),
    "locked logins": lambda hub: setattr(hub, "login_attempts", 0),
    "a private repository": lambda hub: setattr(hub, "public_read_only", True),
    "a foreign realm": lambda hub: setattr(hub, "realm", hub.stranger_url),
    "a dead signed URL": lambda hub: hub.fail("cdn", 403),
    "a CDN that is no HTTP server": lambda hub: hub.garbage("cdn"),
    "a CDN that stalls": lambda hub: hub.hang("cdn"),
    "a blob cut off": lambda hub: hub.cut("cdn", 10, times=None),
    "a lying encoding": lambda hub: hub.gzip_encode("any"),
    "a redirect loop": lambda hub: hub.redirect_loop("blob"),
    "a token that is none": lambda hub: hub.garbage("token", b'{"token": "\\n"}'),
    "a token server that echoes": lambda hub: hub.fail("token", 500, body=PAT.encode()),
    "a registry that echoes": lambda hub: hub.fail(at("manifest"), 403, body=PAT.encode()),
    "a registry that is no HTTP server": lambda hub: hub.garbage("registry"),
    "the abuse limit": lambda hub: hub.abuse_limit(),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
async def test_secrets_do_not_show(spoil: Spoil, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    async with FakeHub() as hub, asking_as_account(hub, idle_timeout=0.2) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest")
        hub.make_private(REPOSITORY.name)
        given = remember_tokens(hub)
        for turn in range(2):  # once healthy, so that there are secrets to tell, then spoilt
            await pull(upstream, image.layers[0], shown)
            if not turn:
                spoil(hub)
                hub.expire_tokens()
                upstream.clock.turn(400)
        secrets = {PAT, *given, *signatures(hub), *passwords(hub)}
        shown += [repr(each) for each in gc.get_objects() if str(type(each).__module__).startswith("proxy.")]
        shown.append((await asyncio.to_thread(upstream.metrics.exposition, ""))[0].decode())

    shown += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    text = "\n".join(shown)
    assert len(secrets) >= 4
    assert [secret for secret in secrets if secret in text] == []


async def pull(upstream: RiggedUpstream, blob: str, shown: list[str]) -> None:
    """Every verb once; all that the errors show, causes included, is added to `shown`."""
    digest = Digest.parse(blob)

    async def read_blob() -> None:
        async with upstream.open_blob(REPOSITORY, digest) as body:
            shown.append(f"{body!r} {body}")
            while await body.read():
                pass

    for verb in (
        lambda: upstream.head_manifest(REPOSITORY, LATEST),
        lambda: upstream.get_manifest(REPOSITORY, LATEST),
        lambda: upstream.is_public(REPOSITORY, LATEST),
        lambda: upstream.head_blob(REPOSITORY, digest),
        read_blob,
    ):
        try:
            await verb()
        except RegistryError as error:
            shown.append("".join(traceback.format_exception(error)))
            shown.append(f"{error!r} {error} {error.body()!r} {error.__cause__!r}")


def remember_tokens(hub: FakeHub) -> list[str]:
    """Every token that the hub will have given."""
    given: list[str] = []

    def note(request: Recorded) -> Iterator[str]:
        found = re.fullmatch(r"Bearer (\S+)", request.headers.get("Authorization", ""))
        if found:
            given.append(found[1])
        yield from ()

    hub.change(lambda request: bool(list(note(request))), lambda answer: None)
    return given


def signatures(hub: FakeHub) -> set[str]:
    """The signed part of every URL that the CDN was asked for."""
    return {request.query for request in hub.requests if request.listener == "cdn"}


def passwords(hub: FakeHub) -> set[str]:
    return {base64.b64encode(f"{hub.username}:{PAT}".encode()).decode(), json.dumps(PAT)}
