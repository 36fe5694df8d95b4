"""The hub put together: four listeners, one library, one ledger."""

from typing import Self

from aiohttp import web

from .answers import Answer, json_answer
from .cdn import Cdn
from .faults import Faults
from .ledger import Ledger, Recorded, read_request
from .library import Library
from .listener import Listener
from .quota import Quota
from .registry import Registry
from .settings import Settings
from .tokens import Tokens
from .wire import send


class FakeHub(Settings, Library, Ledger, Faults):
    """A registry that behaves like Docker Hub, on loopback, and as badly as a test wants.

    What a test says to it is in its four bases: switches (Settings), content (Library), what was asked (Ledger) and
    what goes wrong (Faults). `async with FakeHub() as hub:` runs it.
    """

    def __init__(
        self,
        username: str = "alice",
        pat: str = "dckr_pat_test",
        rate_limit: tuple[int, int] | None = (100, 21600),
    ) -> None:
        Settings.__init__(self, username=username, pat=pat, rate_limit=rate_limit)
        Library.__init__(self)
        Ledger.__init__(self)
        Faults.__init__(self)
        self._quota = Quota(self)
        self._tokens = Tokens(self, self, self)
        self._cdn = Cdn(self, self, self)
        self._registry = Registry(self, self, self, self._tokens, self._quota, self._signed_url)
        # The stranger has a host of its own: nothing secret should ever come to it.
        self._listeners = {
            "registry": Listener("registry", self._serve),
            "token": Listener("token", self._serve),
            "cdn": Listener("cdn", self._serve),
            "stranger": Listener("stranger", self._serve, host="127.0.0.2"),
        }

    async def __aenter__(self) -> Self:
        for listener in self._listeners.values():
            await listener.start()
        self.realm = self.realm or f"{self.token_url}/token"
        return self

    async def __aexit__(self, *_: object) -> None:
        for listener in self._listeners.values():
            await listener.close()

    @property
    def url(self) -> str:
        """The registry: what a cache is pointed at."""
        return self._listeners["registry"].url

    @property
    def token_url(self) -> str:
        return self._listeners["token"].url

    @property
    def cdn_url(self) -> str:
        return self._listeners["cdn"].url

    @property
    def stranger_url(self) -> str:
        """A server of somebody else, on another host, that gives a worthless token to everybody."""
        return self._listeners["stranger"].url

    async def gone(self, *listeners: str) -> None:
        """Refuse connections on all ports (or on the named listeners') and break the open ones."""
        for name in listeners or self._listeners:
            await self._listeners[name].gone()

    async def back(self, *listeners: str) -> None:
        """Listen again, on the same ports."""
        for name in listeners or self._listeners:
            await self._listeners[name].back()

    def remaining(self, identity: str) -> int | None:
        """Return the pulls an identity has left, or None without a limit."""
        return self._quota.remaining(identity)

    def set_remaining(self, remaining: int, identity: str | None = None) -> None:
        """Leave an identity (or everybody) this many pulls."""
        self._quota.set_remaining(remaining, identity)

    @property
    def counted_pulls(self) -> int:
        """Pulls counted by the limiter: manifest GETs answered 200 or 304."""
        return self._quota.counted.total()

    def counted_pulls_of(self, identity: str) -> int:
        """Pulls counted for one identity."""
        return self._quota.counted[identity]

    def reset_counts(self) -> None:
        """Forget what was asked so far; what is left of the quota stays."""
        super().reset_counts()
        self._quota.counted.clear()

    def expire_tokens(self) -> None:
        """Let every token given so far be worthless."""
        self._tokens.expire()

    def expire_urls(self) -> None:
        """Let every signed URL issued so far be dead."""
        self._cdn.expire()

    def unlock_logins(self) -> None:
        """Forget the failed logins."""
        self._tokens.unlock()

    async def _serve(self, listener: Listener, request: web.BaseRequest) -> web.StreamResponse:
        record = read_request(listener.name, listener.url, request)
        self.requests.append(record)
        try:
            answer = self.answer(record, lambda: self._honest(record))
        except Exception as error:
            # The client sees a 500, which a test might take for an upstream's: say whose fault it was.
            self.violations.append(f"the hub itself failed: {error!r}")
            raise
        return await send(request, answer, record)

    def _honest(self, request: Recorded) -> Answer:
        if request.listener == "registry":
            return self._registry.answer(request)
        if request.listener == "token":
            return self._tokens.answer(request)
        if request.listener == "cdn":
            return self._cdn.answer(request)
        if "Authorization" in request.headers:
            self.violations.append("Authorization was sent to a stranger")
        return json_answer(200, {"token": "worthless", "expires_in": 300})

    def _signed_url(self, method: str, digest: str) -> str:
        return self.cdn_url + self._cdn.sign(method, digest)
