"""What an answer that is not the wanted one means (PROTOCOL 1.4, 2.3, 3)."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Final

from proxy.clock import Clock
from proxy.oci.errors import Denied, NameUnknown, RegistryError, TooManyRequests, Unavailable
from proxy.policy.quota import Gate, Limits, parse_retry_after
from proxy.upstream.failures import Unasked
from proxy.upstream.transport import Answer

ERROR_BYTES: Final = 64 * 1024


class Refusals:
    """Turns the answers of one upstream into errors, and tells its limits of every 429."""

    def __init__(self, upstream: str, limits: Limits, clock: Clock) -> None:
        self._upstream = upstream
        self._limits = limits
        self._clock = clock

    async def of(self, answer: Answer, unknown: type[RegistryError], *, pull: bool = False) -> RegistryError:
        """The error that this answer means; `unknown` is what 404 means, `pull` says that it was a manifest GET."""
        code = error_code(await answer.read(ERROR_BYTES) or b"")
        status = answer.status
        if answer.elsewhere:
            # Never the registry's word: a signed URL that died or a store that is ill. A fresh redirect may help.
            return Unavailable(f"{self._upstream}: the redirect's target answered {status}")
        if status == 404:
            meant = NameUnknown if code == NameUnknown.code else unknown
            return meant(f"{self._upstream} does not have it")
        if status in (401, 403):
            return Denied(f"{self._upstream} denies access to this repository, or there is no such repository")
        if status == 429:
            return self.too_many(Gate.PULLS if pull and code == TooManyRequests.code else Gate.REQUESTS, answer.headers)
        kind = Unasked if status >= 500 else Unavailable
        return kind(f"{self._upstream} answered {status}", retry_after=self._retry_after(answer.headers))

    def too_many(self, gate: Gate, headers: Mapping[str, str]) -> TooManyRequests:
        """Closes the gate for as long as a 429 says, or as long as we wait by ourselves."""
        now = self._clock.monotonic()
        self._limits.refused(gate, self._retry_after(headers), now, random.random())
        limit = "pull limit" if gate is Gate.PULLS else "request limit"
        return TooManyRequests(
            f"the {limit} of {self._upstream} is reached", retry_after=self._limits.closed_for(gate, now)
        )

    def _retry_after(self, headers: Mapping[str, str]) -> float | None:
        return parse_retry_after(headers.get("Retry-After"), self._clock.time())


def error_code(body: bytes) -> str | None:
    """The first code of a body in the specification's error format; None for any other body."""
    try:
        document = json.loads(body)
        code = document["errors"][0]["code"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return code if isinstance(code, str) else None
