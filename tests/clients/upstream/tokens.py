"""The token server: GET with Basic (the PAT) or anonymous; grants the intersection, which may be empty."""

import datetime
from collections.abc import Iterable

from aiohttp import BasicAuth, web

from .keys import LIFETIME_S, SigningKey, grant
from .ledger import Ledger
from .quota import ANONYMOUS
from .settings import SERVICE, Settings


def token_app(settings: Settings, key: SigningKey, ledger: Ledger) -> web.Application:
    """Build the token server."""

    async def get_token(request: web.Request) -> web.Response:
        identity = _identity(request, settings)
        if identity is None:
            ledger.violations.append("a login that is not of this registry was sent to its token server")
            # Docker Hub's legacy shape, PROTOCOL 2.2.
            return web.json_response({"details": "incorrect username or password"}, status=401)
        if request.query.get("service") != SERVICE:
            ledger.violations.append("a token was asked for another service")
        ledger.tokens[identity] += 1
        token = key.token(identity, list(_granted(request.query.getall("scope", []), identity, settings)))
        issued_at = datetime.datetime.now(datetime.UTC).isoformat()
        return web.json_response(
            {"token": token, "access_token": token, "expires_in": LIFETIME_S, "issued_at": issued_at}
        )

    app = web.Application()
    app.router.add_get("/token", get_token)
    return app


def _identity(request: web.Request, settings: Settings) -> str | None:
    authorization = request.headers.get("Authorization")
    if authorization is None:
        return ANONYMOUS
    login = BasicAuth.decode(authorization)
    return login.login if (login.login, login.password) == (settings.username, settings.pat) else None


def _granted(scopes: Iterable[str], identity: str, settings: Settings) -> Iterable[dict[str, object]]:
    # Missing rights are never an error here: a repository that is not there and one that may not be pulled both give
    # a token without access, and the registry answers it with insufficient_scope. So Docker Hub hides existence.
    readable = {*settings.public, *(settings.private if identity else ())}
    for scope in scopes:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind == "repository" and name in readable and "pull" in actions.split(","):
            yield grant(name, "pull")
