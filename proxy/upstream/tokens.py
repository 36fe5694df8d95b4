"""Bearer tokens: got from the realm with `GET` and Basic, or anonymously, and kept while they last (PROTOCOL 2.2)."""

from __future__ import annotations

import asyncio
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from yarl import URL

from proxy.clock import Clock
from proxy.collapse import Collapser
from proxy.oci.errors import Denied, Unavailable
from proxy.oci.names import Repository
from proxy.policy.quota import Gate
from proxy.upstream.credentials import Credentials
from proxy.upstream.failures import Unasked, bounded
from proxy.upstream.refusals import Refusals
from proxy.upstream.transport import Answer, Transport

MAX_TOKEN_BYTES: Final = 1024 * 1024
MAX_TOKENS: Final = 1000
_DEFAULT_SECONDS: Final = 60.0
_MARGIN_SECONDS: Final = 30.0
_MAX_SECONDS: Final = 24 * 3600.0
_USABLE: Final = re.compile(r"\A[\x21-\x7e]+\Z")


@dataclass(frozen=True, slots=True)
class Realm:
    """Where tokens of an upstream come from."""

    url: URL
    service: str | None


@dataclass(frozen=True, slots=True)
class Token:
    """A token and until when it is used, on the monotonic clock."""

    value: str = field(repr=False)
    scope: str
    expires_at: float


class _Key(NamedTuple):
    identity: str
    repository: str


class _LoginRefused(Exception):
    """The credentials may not be sent now, or were refused: ask anonymously."""


class Tokens:
    """The tokens of one upstream, one for each identity and repository, and one exchange at a time for each."""

    def __init__(self, transport: Transport, credentials: Credentials, refusals: Refusals, clock: Clock) -> None:
        self._transport = transport
        self._credentials = credentials
        self._refusals = refusals
        self._clock = clock
        self._kept: dict[_Key, Token] = {}
        self._exchanges: Collapser[tuple[_Key, str], str] = Collapser()
        self._trial = asyncio.Lock()

    async def aclose(self) -> None:
        """Stop the exchanges that run."""
        await self._exchanges.aclose()

    async def token(self, realm: Realm, repository: Repository, scope: str | None, *, anonymous: bool) -> str:
        """A token to pull from this repository: our account's or, if that cannot be had, an anonymous one.

        With a scope, that of a challenge, only a token of just this scope will do. Raises Denied, TooManyRequests and
        Unavailable.
        """
        if self._credentials.configured and not anonymous:
            try:
                return await self._of("account", realm, repository, scope)
            except _LoginRefused:
                pass
        return await self._of("anonymous", realm, repository, scope)

    def drop(self, repository: Repository, value: str) -> None:
        """Forget this token, which upstream did not take; a newer one is kept."""
        for key in (_Key("account", repository.name), _Key("anonymous", repository.name)):
            if key in self._kept and self._kept[key].value == value:
                del self._kept[key]

    async def _of(self, identity: str, realm: Realm, repository: Repository, scope: str | None) -> str:
        key = _Key(identity, repository.name)
        kept = self._kept.get(key)
        if kept and scope in (None, kept.scope) and kept.expires_at > self._clock.monotonic():
            return kept.value
        wanted = scope or f"repository:{repository.name}:pull"
        exchange = self._exchange_as_account if identity == "account" else self._exchange_anonymously
        return await self._exchanges.run((key, wanted), lambda: exchange(key, realm, wanted))

    async def _exchange_anonymously(self, key: _Key, realm: Realm, scope: str) -> str:
        return await self._exchange(key, realm, scope, None)

    async def _exchange_as_account(self, key: _Key, realm: Realm, scope: str) -> str:
        if self._credentials.proven:
            return await self._exchange(key, realm, scope, await self._basic())
        # One at a time until upstream has taken them: many wrong logins at once would lock the account.
        async with bounded(self._transport.name), self._trial:
            return await self._exchange(key, realm, scope, await self._basic())

    async def _basic(self) -> str:
        basic = await self._credentials.basic()
        if basic is None:
            raise _LoginRefused
        return basic

    async def _exchange(self, key: _Key, realm: Realm, scope: str, basic: str | None) -> str:
        asked_at = self._clock.monotonic()
        query = {"service": realm.service, "scope": scope} if realm.service else {"scope": scope}
        async with bounded(self._transport.name):
            url, accept = realm.url.update_query(query), {"Accept": "application/json"}
            with await self._transport.request("token", "GET", url, accept, basic, same_origin=True) as answer:
                if answer.status != 200:
                    raise await self._refusal(answer, basic)
                body = await answer.read(MAX_TOKEN_BYTES)
        token = self._token(body or b"", scope, asked_at)
        if basic:
            self._credentials.accepted()
        self._keep(key, token)
        return token.value

    async def _refusal(self, answer: Answer, basic: str | None) -> Exception:
        if answer.status == 401 and basic:
            self._credentials.rejected(basic)
            return _LoginRefused()
        if answer.status == 429 and basic:
            self._credentials.locked(basic)
            return _LoginRefused()
        if answer.status == 429:
            return self._refusals.too_many(Gate.REQUESTS, answer.headers)
        if answer.status in (401, 403):
            return Denied(f"{self._transport.name} gives no token for this repository")
        kind = Unasked if answer.status >= 500 else Unavailable
        return kind(f"{self._transport.name}: the token server answered {answer.status}")

    def _token(self, body: bytes, scope: str, asked_at: float) -> Token:
        document = _document(body)
        value = document.get("token") or document.get("access_token")
        if not isinstance(value, str) or not _USABLE.match(value):
            raise Unavailable(f"{self._transport.name}: the token server answered without a token")
        return Token(value, scope, asked_at + lifetime(document.get("expires_in")))

    def _keep(self, key: _Key, token: Token) -> None:
        self._kept.pop(key, None)
        self._kept[key] = token
        while len(self._kept) > MAX_TOKENS:
            del self._kept[next(iter(self._kept))]


def lifetime(expires_in: object) -> float:
    """For how many seconds to use a token that lasts `expires_in`: less a margin, which is at most half of it."""
    lasts = _DEFAULT_SECONDS
    if isinstance(expires_in, int | float) and 0 < expires_in < math.inf:
        lasts = float(min(expires_in, _MAX_SECONDS))  # In this order: JSON has integers that no float can hold.
    return max(lasts - _MARGIN_SECONDS, lasts / 2)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
