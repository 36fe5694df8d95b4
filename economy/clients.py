"""Clients that pull as dockerd (with its own image store) and containerd do, on a fresh machine, and check every byte.

    dockerd      a mirror that fails at anything is left, and the whole pull begins anew at Docker Hub; a HEAD of a tag
                 that fails is repeated as a GET
    containerd   each request goes to the mirror first, and to Docker Hub if that one does not answer it with content; a
                 429 is asked for again four times at once

Both pull what a tag names by digest, the index first, then the manifest of their platform, then its blobs, three at a
time. Both go around a mirror with the address that they share with it: what they pull there is counted with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from economy.findings import Findings, Outcome
from economy.goods import Goods
from economy.workload import ImageName, Job, kind_of, platform_of
from tests.fake_hub import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

ACCEPT: Final = ", ".join((DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX))
PATIENCE_SECONDS: Final = 60.0
AT_ONCE: Final = 3
ASKED_AGAIN: Final = 4
"""How often containerd repeats what was answered 429."""
_OTHER_HOST: Final = (301, 302, 307)


class PullError(Exception):
    """An image could not be pulled, or not from here; the message says why."""


@dataclass(frozen=True, slots=True)
class Host:
    """Where a client asks; `url` without a slash at the end."""

    url: str
    is_mirror: bool


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class Runner:
    """The machine of one job."""

    def __init__(self, job: Job, hosts: Sequence[Host], goods: Goods, findings: Findings, outcome: Outcome) -> None:
        self._job = job
        self._hosts = hosts
        self._goods = goods
        self._findings = findings
        self._outcome = outcome
        self._tokens: dict[tuple[Host, str], str] = {}
        self._some = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Pull all images of the job, one after the other. Raises PullError; `missed` is then the image."""
        connector = aiohttp.TCPConnector(local_addr=(f"127.0.1.{self._job.client + 1}", 0))
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as self._session:
            for image in self._job.images:
                self._outcome.missed = image.repository
                await (
                    self._as_dockerd(image) if kind_of(self._job.client) == "dockerd" else self._as_containerd(image)
                )

    # The two kinds

    async def _as_dockerd(self, image: ImageName) -> None:
        complaint = PullError("there is no host")
        for host in self._hosts:
            try:
                await self._ask(host, "GET", "/v2/")
                await self._pull(image, [host], repeat_head=True)
                return
            except PullError as error:
                complaint = error
        raise complaint

    async def _as_containerd(self, image: ImageName) -> None:
        await self._pull(image, self._hosts)

    async def _pull(self, image: ImageName, hosts: Sequence[Host], *, repeat_head: bool = False) -> None:
        if self._job.pinned:
            digest = self._goods.digest(image)
        else:
            digest = await self._resolve(image, hosts, repeat_head=repeat_head)
        document = await self._manifest(image, hosts, digest)
        if "manifests" in document:
            document = await self._manifest(image, hosts, _child(document, platform_of(image, self._job.client)))
        blobs = dict.fromkeys(each["digest"] for each in (document["config"], *document["layers"]))
        pulls = [asyncio.ensure_future(self._blob(image, hosts, each)) for each in blobs]
        try:
            await asyncio.gather(*pulls)
        finally:
            for each in pulls:
                each.cancel()
            await asyncio.gather(*pulls, return_exceptions=True)

    async def _resolve(self, image: ImageName, hosts: Sequence[Host], *, repeat_head: bool) -> str:
        """The digest that a tag names."""
        path = f"/v2/{image.repository}/manifests/{image.tag}"
        for method in ("HEAD", "GET") if repeat_head else ("HEAD",):
            reply = await self._first(hosts, method, path)
            if reply.status == 200 and (digest := reply.headers.get("Docker-Content-Digest")) is not None:
                self._outcome.outdated += digest != self._goods.current(image)
                self._outcome.marked += "Warning" in reply.headers
                return digest
        raise PullError(f"{image.repository}:{image.tag}: {_why(reply)}")

    async def _manifest(self, image: ImageName, hosts: Sequence[Host], digest: str) -> dict[str, Any]:
        self._findings.asked.add((image.repository, digest))
        reply = await self._content(hosts, f"/v2/{image.repository}/manifests/{digest}", digest)
        document: dict[str, Any] = json.loads(reply.body)
        return document

    async def _blob(self, image: ImageName, hosts: Sequence[Host], digest: str) -> None:
        async with self._some:
            await self._content(hosts, f"/v2/{image.repository}/blobs/{digest}", digest)

    # Asking

    async def _content(self, hosts: Sequence[Host], path: str, digest: str) -> _Reply:
        reply = await self._first(hosts, "GET", path)
        if reply.status != 200:
            raise PullError(f"{path}: {_why(reply)}")
        if f"sha256:{hashlib.sha256(reply.body).hexdigest()}" != digest:
            self._findings.wrong.append(path)
            raise PullError(f"{path}: wrong bytes")
        return reply

    async def _first(self, hosts: Sequence[Host], method: str, path: str) -> _Reply:
        """The first good answer, or the last bad one. Raises PullError where none was heard."""
        last: _Reply | PullError = PullError("there is no host")
        for host in hosts:
            try:
                last = await self._ask(host, method, path)
                for _ in range(ASKED_AGAIN if kind_of(self._job.client) == "containerd" else 0):
                    if last.status == 429:
                        last = await self._ask(host, method, path)
            except PullError as error:
                last = error
                continue
            if last.status == 200:
                return last
        if isinstance(last, PullError):
            raise last
        return last

    async def _ask(self, host: Host, method: str, path: str) -> _Reply:
        """One question, with a token if one is wanted, and to wherever the answer is. Raises PullError."""
        self._outcome.direct |= not host.is_mirror and len(self._hosts) > 1
        url = host.url + path + ("?ns=docker.io" if host.is_mirror else "")
        key = host, path.rpartition("/manifests/")[0] or path.rpartition("/blobs/")[0]
        reply = await self._send(method, url, self._tokens.get(key))
        if reply.status == 401:
            self._tokens[key] = await self._token(reply.headers.get("WWW-Authenticate", ""))
            reply = await self._send(method, url, self._tokens[key])
        if reply.status in _OTHER_HOST:
            reply = await self._send(method, reply.headers["Location"], None)
        return reply

    async def _token(self, challenge: str) -> str:
        pairs = (each.partition("=") for each in challenge.removeprefix("Bearer ").split(","))
        words = {name: value.strip('"') for name, _, value in pairs}
        query = "&".join(f"{name}={words[name]}" for name in ("service", "scope") if name in words)
        reply = await self._send("GET", f"{words.get('realm', '')}?{query}", None)
        return str(json.loads(reply.body)["token"]) if reply.status == 200 else ""

    async def _send(self, method: str, url: str, token: str | None) -> _Reply:
        headers = {"Accept": ACCEPT, "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        address = URL(url, encoded=True)
        try:
            async with self._session.request(method, address, headers=headers, allow_redirects=False) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise PullError(f"{address.path}: {type(error).__name__}") from error
        self._findings.statuses[response.status] += 1
        self._findings.bytes_clients += len(body)
        return _Reply(response.status, response.headers, body)


def _child(index: dict[str, Any], platform: str) -> str:
    """The digest of the manifest for this platform."""
    found = next(
        each["digest"]
        for each in index["manifests"]
        if f"{each['platform']['os']}/{each['platform']['architecture']}" == platform
    )
    return str(found)


def _why(reply: _Reply) -> str:
    return f"{reply.status} {reply.body[:120].decode(errors='replace').strip()}" if reply.body else str(reply.status)
