"""Requests to a registry with the `Authorization` that it wants (PROTOCOL 2.1-2.3).

The first 401 teaches how this upstream wants to be asked; from then on requests carry it at once. A 401 to such a
request is answered once, with a fresh token of the scope that the 401 names; a second one stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from yarl import URL

from proxy.oci.errors import Denied
from proxy.oci.names import Repository
from proxy.upstream.challenge import Challenge, parse_challenges
from proxy.upstream.credentials import Credentials
from proxy.upstream.realm import trusted_realm
from proxy.upstream.tokens import Realm, Tokens
from proxy.upstream.transport import Answer, Transport


class Basic:
    """The registry wants the user name and password themselves."""


class Authorizer:
    """Asks one registry on behalf of our account, or anonymously."""

    def __init__(self, url: URL, transport: Transport, tokens: Tokens, credentials: Credentials) -> None:
        self._url = url
        self._transport = transport
        self._tokens = tokens
        self._credentials = credentials
        self._way: Realm | Basic | None = None

    async def request(
        self,
        kind: str,
        method: str,
        url: URL,
        repository: Repository,
        headers: Mapping[str, str],
        *,
        anonymous: bool = False,
    ) -> Answer:
        """The answer, never a 401 of the registry itself: Denied is raised for one that stands.

        Raises Unavailable for a realm that is not trusted, and as `Tokens.token` and `Transport.request` do.
        """
        sent = await self._known(repository, anonymous=anonymous)
        answer = await self._transport.request(kind, method, url, headers, sent)
        if _is_challenge(answer):
            with answer:
                challenges = answer.headers.getall("WWW-Authenticate", ())
                again = await self._answer(challenges, repository, sent, anonymous=anonymous)
            if again is None or again == sent:
                await self._refused(sent)
                raise self._denied()
            sent = again
            answer = await self._transport.request(kind, method, url, headers, sent)
            if _is_challenge(answer):
                answer.close()
                await self._refused(sent)
                raise self._denied()
        if sent is not None and sent.startswith("Basic "):
            self._credentials.accepted()
        return answer

    async def _known(self, repository: Repository, *, anonymous: bool) -> str | None:
        match self._way:
            case Realm() as realm:
                return "Bearer " + await self._tokens.token(realm, repository, None, anonymous=anonymous)
            case Basic() if not anonymous:
                return await self._credentials.basic()
            case _:
                return None

    async def _answer(
        self, challenges: Iterable[str], repository: Repository, sent: str | None, *, anonymous: bool
    ) -> str | None:
        chosen = choose(parse_challenges(challenges))
        if chosen is None:
            return None
        if chosen.scheme == "basic":
            self._way = Basic()
            return None if anonymous else await self._credentials.basic()
        # In a thread, since the first look at a host that is not the registry's reads the list of public suffixes.
        url = await asyncio.to_thread(trusted_realm, chosen.params["realm"], self._url)
        self._way = realm = Realm(url, chosen.params.get("service"))
        if sent is not None:
            self._tokens.drop(repository, sent.removeprefix("Bearer "))
        scope = chosen.params.get("scope")
        return "Bearer " + await self._tokens.token(realm, repository, scope, anonymous=anonymous)

    async def _refused(self, sent: str | None) -> None:
        """A 401 to Basic is about the password or about this repository: the base of the API tells which."""
        if sent is None or not sent.startswith("Basic "):
            return
        with await self._transport.request("other", "GET", self._url / "v2/", {}, sent, same_origin=True) as answer:
            if answer.status == 401:
                self._credentials.rejected(sent)

    def _denied(self) -> Denied:
        asked = " (asked anonymously: the credentials are rejected)" if self._credentials.state == "rejected" else ""
        return Denied(f"{self._transport.name} denies access to this repository, or there is no such repository{asked}")


def choose(challenges: Iterable[Challenge]) -> Challenge | None:
    """The challenge to answer, a token before the password itself; None if there is none that we know."""
    known = {each.scheme: each for each in challenges if each.scheme != "bearer" or "realm" in each.params}
    return known.get("bearer", known.get("basic"))


def _is_challenge(answer: Answer) -> bool:
    return answer.status == 401 and not answer.elsewhere
