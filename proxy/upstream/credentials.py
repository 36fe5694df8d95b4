"""The user name and password for one upstream, and the breaker that guards them.

A wrong password sent again and again locks the account, for good passwords too (PROTOCOL 1.4). So a refusal trips the
breaker: the credentials are not sent for BREAKER_SECONDS, unless the password has changed meanwhile, and upstream is
asked anonymously.
"""

from __future__ import annotations

import base64
import logging
from typing import Final, Literal

import aiofiles

from proxy.clock import Clock
from proxy.config import UpstreamOptions
from proxy.metrics import Metrics

BREAKER_SECONDS: Final = 900.0
_MAX_PASSWORD_CHARACTERS: Final = 64 * 1024

_log = logging.getLogger(__name__)


class Credentials:
    """The configured credentials of one upstream, and whether they may be sent now."""

    def __init__(self, options: UpstreamOptions, metrics: Metrics, clock: Clock) -> None:
        self._options = options
        self._metrics = metrics
        self._clock = clock
        self._refused: str | None = None
        self._refused_until: float | None = None
        self._proven = False
        if self.configured:
            metrics.credentials_rejected(options.name, False)

    def __repr__(self) -> str:
        return f"<Credentials for {self._options.name}: {self.state}>"

    @property
    def configured(self) -> bool:
        given = self._options.password is not None or self._options.password_file is not None
        return self._options.username is not None and given

    @property
    def proven(self) -> bool:
        """Whether upstream took them the last time they were sent."""
        return self._proven

    @property
    def state(self) -> Literal["none", "ok", "rejected"]:
        """`rejected` from a refusal until upstream takes them again."""
        if not self.configured:
            return "none"
        return "ok" if self._refused_until is None else "rejected"

    async def basic(self) -> str | None:
        """The Authorization header (RFC 7617) that may be sent now; None while the breaker is open for it.

        The password is read anew each time.
        """
        if not self.configured:
            return None
        password = await self._password()
        if password is None:
            self._trip(None, f"{self._options.password_file} cannot be read or is empty; give it one line")
            return None
        basic = "Basic " + base64.b64encode(f"{self._options.username}:{password}".encode()).decode()
        return None if self._is_refused(basic) else basic

    def accepted(self) -> None:
        """Upstream took them."""
        self._proven = True
        if self._refused_until is not None:
            self._refused_until = None
            self._metrics.credentials_rejected(self._options.name, False)
            _log.info("%s accepts the credentials again", self._options.name)

    def rejected(self, basic: str) -> None:
        """Upstream says that what was sent is wrong."""
        self._trip(
            basic,
            "it rejected the user name or access token; check username and password_file: is the token expired or "
            "revoked, is the user name the account's name and not an e-mail address?",
        )

    def locked(self, basic: str) -> None:
        """Upstream takes no logins from us for now, right or wrong."""
        self._trip(basic, "it refuses our logins for now (429): was a wrong password in use, here or elsewhere?")

    def _trip(self, basic: str | None, why: str) -> None:
        known = self._is_refused(basic)
        self._proven = False
        self._refused = basic
        self._refused_until = self._clock.monotonic() + BREAKER_SECONDS
        self._metrics.credentials_rejected(self._options.name, True)
        if not known:
            _log.error(
                "%s is asked anonymously for %d minutes, or until the password changes: %s",
                self._options.name,
                BREAKER_SECONDS / 60,
                why,
            )

    def _is_refused(self, basic: str | None) -> bool:
        if self._refused_until is None or self._clock.monotonic() >= self._refused_until:
            return False
        return basic == self._refused

    async def _password(self) -> str | None:
        if self._options.password is not None:
            return self._options.password.reveal()
        try:
            async with aiofiles.open(self._options.password_file or "", encoding="utf-8") as file:
                return (await file.read(_MAX_PASSWORD_CHARACTERS)).strip() or None
        except (OSError, ValueError):
            return None
