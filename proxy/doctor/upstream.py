"""The checks of one upstream, each standing on the one before: name, port, TLS, challenge, clock, login, scope, quota.

Requests go through the upstream's own `Transport`, so that proxies, redirects and certificates are as they are for
pulls. None is a GET of a manifest. Credentials go to a realm that `trusted_realm` trusts, once, whatever comes of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from yarl import URL

from proxy import __version__
from proxy.clock import Clock
from proxy.config import UpstreamOptions
from proxy.doctor import network
from proxy.doctor.findings import NOT_REACHED, Check, Finding, State, failed, skipped
from proxy.doctor.judge.account import PROBE, granted, judge_login, judge_quota, judge_scope
from proxy.doctor.judge.network import judge_base, judge_connection, judge_name
from proxy.doctor.judge.tls import judge_clock, judge_tls, parse_date
from proxy.doctor.threads import in_thread
from proxy.metrics import Metrics
from proxy.oci.errors import RegistryError, Unavailable
from proxy.oci.manifests import ACCEPT_ALL
from proxy.oci.names import DOCKER_HUB
from proxy.upstream.auth import choose
from proxy.upstream.challenge import Challenge, parse_challenges
from proxy.upstream.credentials import Credentials
from proxy.upstream.failures import bounded
from proxy.upstream.proxies import Proxies
from proxy.upstream.realm import trusted_realm
from proxy.upstream.tokens import MAX_TOKEN_BYTES
from proxy.upstream.transport import Transport

_ASK_AGAIN: Final = "Run this again; if it stays so, ask with curl -i what answers there."
_FOREIGN_REALM: Final = (
    "Credentials go to the registry's own domain alone. Is the url of this upstream right, or does something in "
    "between answer in its place?"
)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A whole answer of the upstream."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    challenges: tuple[str, ...]


class UpstreamChecks:
    """An upstream under examination. `aclose` when done."""

    def __init__(self, options: UpstreamOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._url = URL(options.url)
        metrics = Metrics(version=__version__)
        self._transport = Transport(options, metrics)
        self._credentials = Credentials(options, metrics, clock)
        self._way = self._url
        """Where the connection goes: to the upstream, or to a proxy."""
        self._addresses: list[str] = []
        self._connected: str | None = None
        self._secure = False
        self._their_time: float | None = None
        self._challenge: Challenge | None = None
        self._open = False
        self._sent: str | None = None
        self._lets_pull: bool | None = None
        self._manifest_headers: Mapping[str, str] | None = None

    def checks(self) -> list[Check]:
        """In their order."""
        steps = {
            "DNS": self.name,
            "TCP": self.connection,
            "TLS": self.tls,
            "challenge": self.challenge,
            "clock": self.clock,
            "login": self.login,
            "scope": self.scope,
            "quota": self.quota,
        }
        return [Check(f"{self._options.name} {name}", run) for name, run in steps.items()]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def name(self) -> Finding:
        """DNS, of the upstream or of the proxy before it."""
        try:
            proxy = Proxies.configured(self._options.proxy).proxy_for(self._url)
        except Unavailable as error:
            return failed(error.message, "Correct HTTPS_PROXY or HTTP_PROXY in the environment.")
        self._way = proxy.url if proxy else self._url
        host = self._way.host or ""
        self._addresses = await network.resolve(host)
        return judge_name(host, self._addresses, proxy=self._proxied)

    async def connection(self) -> Finding:
        """TCP."""
        if not self._addresses:
            return NOT_REACHED
        host, port = self._way.host or "", self._way.port or 0
        attempts = await network.connect(self._addresses, port, min(5.0, self._options.connect_timeout))
        if attempts[-1].problem is None:
            self._connected = attempts[-1].address
        return judge_connection(host, port, attempts, proxy=self._proxied)

    async def tls(self) -> Finding:
        """The certificate."""
        if self._connected is None:
            return NOT_REACHED
        self._secure = self._proxied or self._url.scheme == "http"
        if self._url.scheme == "http":
            return skipped("plain http: nobody proves who answers")
        if self._proxied:
            return skipped("through the HTTP proxy: the next step tells")
        found = await network.handshake(self._options, self._url, self._connected)
        self._their_time = found.their_time
        finding = judge_tls(self._url.host or "", found, self._clock.time())
        self._secure = finding.state is State.OK
        return finding

    async def challenge(self) -> Finding:
        """/v2/ without a login."""
        if not self._secure:
            return NOT_REACHED
        await self._transport.start()
        try:
            answer = await self._ask("other", "GET", self._url / "v2/", None, same_origin=True)
        except RegistryError as error:
            return failed(error.message, _ASK_AGAIN)
        self._their_time = parse_date(answer.headers.get("Date"))
        chosen = choose(parse_challenges(answer.challenges))
        try:
            realm = await self._realm(chosen) if chosen and chosen.scheme == "bearer" else None
        except RegistryError as error:
            return failed(error.message, _FOREIGN_REALM)
        scheme = chosen.scheme if chosen else None
        finding = judge_base(answer.status, scheme, realm.host if realm else None, is_registrys=_is_registrys(answer))
        self._open = finding.state is State.OK
        self._challenge = chosen if answer.status == 401 else None
        return finding

    async def clock(self) -> Finding:
        """Our clock against the upstream's."""
        if self._their_time is None:
            return skipped("the upstream told no time") if self._open else NOT_REACHED
        return judge_clock(self._their_time, self._clock.time())

    async def login(self) -> Finding:
        """A token, or the password itself where the registry asks for that."""
        if not self._open:
            return NOT_REACHED
        if self._challenge is None:
            return skipped("none is asked for")
        basic = await self._credentials.basic()
        if self._credentials.configured and basic is None:
            return failed("the password_file cannot be read or is empty", "Give it one line: the access token.")
        try:
            if self._challenge.scheme == "basic":
                return await self._login_with_basic(basic)
            return await self._login_for_token(self._challenge, basic)
        except RegistryError as error:
            return failed(error.message, _ASK_AGAIN)

    async def scope(self) -> Finding:
        """What the login is good for."""
        if not self._open or (self._challenge is not None and self._sent is None):
            return NOT_REACHED
        try:
            if self._options.name != DOCKER_HUB:
                answer = await self._ask("other", "GET", self._url / "v2/", self._sent, same_origin=True)
            else:
                answer = await self._ask("manifest", "HEAD", self._url / f"v2/{PROBE}/manifests/latest", self._sent)
        except RegistryError as error:
            return failed(error.message, _ASK_AGAIN)
        if self._options.name == DOCKER_HUB and answer.status == 200:
            self._manifest_headers = answer.headers
        return judge_scope(self._options, answer.status, lets_pull=self._lets_pull)

    async def quota(self) -> Finding:
        """What is left, told by the free HEAD of the step before."""
        if self._options.name != DOCKER_HUB:
            return skipped("only Docker Hub tells of one")
        if self._manifest_headers is None:
            return NOT_REACHED
        return judge_quota(self._options, self._manifest_headers, self._clock.monotonic())

    @property
    def _proxied(self) -> bool:
        return self._way is not self._url

    async def _login_with_basic(self, basic: str | None) -> Finding:
        if basic is None:
            return failed("the registry wants a login", "Give this upstream a username and a password_file.")
        answer = await self._ask("other", "GET", self._url / "v2/", basic, same_origin=True)
        if answer.status == 200:
            self._sent = basic
        return judge_login(self._options, answer.status, answer.body, has_token=True)

    async def _login_for_token(self, challenge: Challenge, basic: str | None) -> Finding:
        scope = f"repository:{PROBE}:pull" if self._options.name == DOCKER_HUB else challenge.params.get("scope")
        wanted = {"service": challenge.params.get("service"), "scope": scope}
        realm = (await self._realm(challenge)).update_query({name: value for name, value in wanted.items() if value})
        answer = await self._ask("token", "GET", realm, basic, same_origin=True)
        token = _token(answer.body) if answer.status == 200 else None
        if token is not None:
            self._sent = f"Bearer {token}"
            self._lets_pull = granted(token, PROBE) if self._options.name == DOCKER_HUB else None
        elif answer.status in (401, 403) and basic is None and scope is None:
            return skipped("no token without naming a repository")
        return judge_login(self._options, answer.status, answer.body, has_token=token is not None)

    async def _realm(self, challenge: Challenge) -> URL:
        """In a thread: the first look reads the list of public suffixes. Raises Unavailable."""
        return await in_thread(lambda: trusted_realm(challenge.params["realm"], self._url))

    async def _ask(
        self, kind: str, method: str, url: URL, authorization: str | None, *, same_origin: bool = False
    ) -> _Answer:
        """Raises Unavailable."""
        async with bounded(self._options.name):
            headers = {"Accept": ACCEPT_ALL if kind == "manifest" else "application/json"}
            with await self._transport.request(
                kind, method, url, headers, authorization, same_origin=same_origin
            ) as answer:
                body = b"" if method == "HEAD" else await answer.read(MAX_TOKEN_BYTES) or b""
                challenges = tuple(answer.headers.getall("WWW-Authenticate", ()))
                return _Answer(answer.status, answer.headers, body, challenges)


def _is_registrys(answer: _Answer) -> bool:
    """Whether this looks like a registry: the page of a login is answered 200 too."""
    is_json = answer.headers.get("Content-Type", "").startswith("application/json")
    return is_json or "Docker-Distribution-Api-Version" in answer.headers


def _token(body: bytes) -> str | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    value = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
    return value if isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value else None
