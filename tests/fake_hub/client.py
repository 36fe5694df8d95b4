"""Asking a hub directly: for its own tests, and to look behind a cache."""

import base64
import json
from dataclasses import dataclass
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from .hub import FakeHub
from .settings import ANONYMOUS


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read whole."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class HubClient:
    """A client with good manners: identity encoding, URLs left as they are, nothing done by itself."""

    def __init__(self, hub: FakeHub, session: aiohttp.ClientSession, repository: str) -> None:
        self.hub = hub
        self.session = session
        self.repository = repository

    async def send(self, method: str, url: str, **headers: str) -> Reply:
        """Send one request, with underscores in `headers` as hyphens; follow no redirect."""
        named = {"Accept-Encoding": "identity"} | {name.replace("_", "-"): value for name, value in headers.items()}
        encoded = URL(url, encoded=True)
        async with self.session.request(method, encoded, headers=named, allow_redirects=False) as response:
            return Reply(response.status, response.headers, await response.read())

    async def ask_token(self, identity: str = ANONYMOUS, password: str = "", repository: str = "") -> Reply:
        """Ask the token server for the right to pull."""
        scope = f"repository:{repository or self.repository}:pull"
        url = f"{self.hub.realm}?service=registry.docker.io&scope={scope}"
        if identity == ANONYMOUS:
            return await self.send("GET", url)
        basic = base64.b64encode(f"{identity}:{password or self.hub.pat}".encode()).decode()
        return await self.send("GET", url, Authorization=f"Basic {basic}")

    async def token(self, identity: str = ANONYMOUS, repository: str = "") -> str:
        """Return a token."""
        return str((await self.ask_token(identity, repository=repository)).json()["token"])

    async def ask(self, path: str, *, method: str = "GET", token: str | None = None, **headers: str) -> Reply:
        """Ask for something in the repository, with an anonymous token unless given one."""
        authorization = f"Bearer {token or await self.token()}"
        url = f"{self.hub.url}/v2/{self.repository}/{path}"
        return await self.send(method, url, Authorization=authorization, **headers)

    async def location(self, digest: str, method: str = "GET") -> str:
        """Return where a blob is redirected to."""
        return (await self.ask(f"blobs/{digest}", method=method)).headers["Location"]
