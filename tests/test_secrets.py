"""No password, token or signed URL comes out of the cache by any door (DESIGN promise 2; PROTOCOL 8.20)."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, unquote

import aiohttp
import pytest

from proxy.config import LogOptions
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub, Image, Recorded, at

PAT = "dckr_pat_Zm9yYmlkZGVu"
REPOSITORY = "library/alpine"

Spoil = Callable[[FakeHub], object]


def reject(hub: FakeHub) -> None:
    """Refuse the password from now on."""
    hub.pat = "another"
    hub.expire_tokens()


def go_astray(hub: FakeHub) -> None:
    """Name a stranger as realm."""
    hub.realm = f"{hub.stranger_url}/token"
    hub.expire_tokens()


def echo_from_the_token_server(hub: FakeHub) -> None:
    """Answer token requests with an error that holds the password."""
    hub.fail("token", 500, body=PAT.encode())
    hub.expire_tokens()


SPOILS: dict[str, Spoil] = {
    "nothing": lambda hub: None,
    "a wrong password": reject,
    "a foreign realm": go_astray,
    "a token server that echoes": echo_from_the_token_server,
    "a registry that echoes": lambda hub: hub.fail(at("manifest"), 403, body=PAT.encode()),
    "a dead signed URL": lambda hub: hub.fail("cdn", 403),
    "a redirect loop": lambda hub: hub.redirect_loop("blob"),
    "a CDN that is no HTTP server": lambda hub: hub.garbage("cdn"),
    "a blob cut off": lambda hub: hub.cut("cdn", 10),
    "wrong bytes": lambda hub: hub.corrupt("cdn"),
    "the abuse limit": lambda hub: hub.abuse_limit(),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
@pytest.mark.parametrize("style", ["json", "text"])
async def test_secrets_come_out_by_no_door(
    spoil: Spoil, style: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("proxy.store.fills.source.MAX_IDLE_ATTEMPTS", 0)
    seen: list[str] = []
    options = {"log": LogOptions(format="text" if style == "text" else "json")}
    async with (
        FakeHub(pat=PAT) as hub,
        CacheRig(hub.url, tmp_path / "cache", password=PAT, private="serve", options=options) as cache,
    ):
        hub.make_private(REPOSITORY)
        await pull(cache, hub.add_image(REPOSITORY, "first"), seen)
        secrets = secrets_in(hub.requests)
        spoil(hub)
        await pull(cache, hub.add_image(REPOSITORY, "second"), seen)
        secrets |= secrets_in(hub.requests)
        seen += [str(await cache.metrics()), str(await cache.status()), repr(cache.app.config)]
    seen += [cache.log.getvalue(), caplog.text]

    assert len(secrets) >= 4
    assert hub.violations == []
    assert [secret for secret in secrets if any(secret in text for text in seen)] == []


async def pull(cache: CacheRig, image: Image, seen: list[str]) -> None:
    """Everything once, as clients do; what they get is added to `seen`."""
    for method, path in (
        ("HEAD", f"manifests/{image.tag}"),
        ("GET", f"manifests/{image.tag}"),
        ("GET", f"manifests/{image.digest}"),
        ("GET", f"blobs/{image.config}"),
        ("HEAD", f"blobs/{image.layers[0]}"),
        ("GET", f"blobs/{image.layers[0]}"),
    ):
        with suppress(aiohttp.ClientPayloadError):
            reply = await cache.send(method, f"/v2/{REPOSITORY}/{path}")
            seen.append(f"{reply.headers} {reply.body!r}")


def secrets_in(requests: list[Recorded]) -> set[str]:
    """The password, and every token and signature with which upstream was asked."""
    found = {PAT, base64.b64encode(f"alice:{PAT}".encode()).decode()}
    for request in requests:
        bearer = re.fullmatch(r"Bearer (\S+)", request.headers.get("Authorization", ""))
        if bearer:
            found |= {bearer[1], bearer[1].rpartition(".")[2]}
        if request.listener == "cdn":
            found |= {request.query, unquote(request.query)}
            found |= {value for values in parse_qs(request.query).values() for value in values if len(value) > 30}
    return found
