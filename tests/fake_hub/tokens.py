"""The token server, and what the tokens it gave are good for."""

import base64
import binascii
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from .answers import Answer, json_answer, registry_error
from .ledger import Ledger, Recorded
from .library import Library
from .settings import ANONYMOUS, Settings


@dataclass(frozen=True, slots=True)
class Grant:
    """Who a token is for and what it allows to pull."""

    identity: str
    repositories: frozenset[str]
    expires_at: float


class Tokens:
    """Gives tokens as auth.docker.io does: missing rights are no error, they are just not granted."""

    def __init__(self, settings: Settings, library: Library, ledger: Ledger) -> None:
        self._settings = settings
        self._library = library
        self._ledger = ledger
        self._grants: dict[str, Grant] = {}
        self._failures: Counter[str] = Counter()
        self._serial = itertools.count(1)

    def answer(self, request: Recorded) -> Answer:
        """Answer a request for a token."""
        if request.method != "GET" or request.path != "/token":
            return registry_error(404, "UNKNOWN", "page not found")
        authorization = request.headers.get("Authorization")
        if authorization is not None:
            refusal = self._check_password(request, authorization)
            if refusal is not None:
                return refusal
        return self._give(request)

    def grant(self, authorization: str | None) -> Grant | None:
        """Return what a request's Authorization header allows, if its token is ours and still good."""
        scheme, _, token = (authorization or "").partition(" ")
        grant = self._grants.get(token) if scheme.lower() == "bearer" else None
        return grant if grant is not None and time.monotonic() < grant.expires_at else None

    def expire(self) -> None:
        """Let every token given so far be worthless."""
        self._grants.clear()

    def unlock(self) -> None:
        """Forget the failed logins."""
        self._failures.clear()

    def _check_password(self, request: Recorded, authorization: str) -> Answer | None:
        username, password = _basic(authorization)
        if username is None:
            self._ledger.violations.append("a bearer token was sent to the token server")
            return json_answer(401, {"details": "incorrect username or password"})
        request.identity = username
        # A locked name stays locked, good credentials or not.
        if self._failures[username] >= self._settings.login_attempts:
            message = "too many failed login attempts for username or IP address"
            return registry_error(429, "TOOMANYREQUESTS", message)
        if (username, password) != (self._settings.username, self._settings.pat):
            self._failures[username] += 1
            return json_answer(401, {"details": "incorrect username or password"})
        self._failures[username] = 0
        return None

    def _give(self, request: Recorded) -> Answer:
        scopes = parse_qs(request.query).get("scope", [])
        names = [name for scope in scopes if (name := _pull_scope(scope)) is not None]
        request.repository = names[0] if names else None
        granted = frozenset(name for name in names if self._may_pull(request.identity, name))
        token = self._token(request.identity, granted)
        self._grants[token] = Grant(request.identity, granted, time.monotonic() + self._settings.expires_in)
        issued_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "494Z"  # nanoseconds, as Hub has them
        document = {"token": token, "access_token": token, "expires_in": self._settings.expires_in}
        return json_answer(200, document | {"issued_at": issued_at}, x_trace_id="0123456789abcdef")

    def _may_pull(self, identity: str, name: str) -> bool:
        repository = self._library.repositories.get(name)
        if repository is None:
            return False
        return not repository.private or (identity != ANONYMOUS and not self._settings.public_read_only)

    def _token(self, identity: str, granted: frozenset[str]) -> str:
        limit = self._settings.rate_limit
        parameters = {} if limit is None else {"pull_limit": str(limit[0]), "pull_limit_interval": str(limit[1])}
        now = int(time.time())
        payload = {
            "access": [
                {"type": "repository", "name": name, "actions": ["pull"], "parameters": parameters}
                for name in sorted(granted)
            ],
            "aud": self._settings.service,
            "exp": now + self._settings.expires_in,
            "iat": now,
            "iss": "auth.docker.io",
            "jti": f"dckr_jti_{next(self._serial)}",
            "nbf": now - 300,
            "sub": "" if identity == ANONYMOUS else identity,
        }
        return f"{_segment({'alg': 'RS256', 'typ': 'JWT'})}.{_segment(payload)}.c2lnbmF0dXJl"


def _basic(authorization: str) -> tuple[str | None, str]:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None, ""
    try:
        username, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return username, password


def _pull_scope(scope: str) -> str | None:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return name if kind == "repository" and "pull" in actions.split(",") else None


def _segment(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()
