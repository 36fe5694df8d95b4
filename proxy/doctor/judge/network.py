"""What a look at an upstream's name, port and first answer means."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.doctor.findings import Finding, failed, ok


@dataclass(frozen=True, slots=True)
class Attempt:
    """A connection that was tried. `problem` is an error number, None if it was made; -1 if it came to no end."""

    address: str
    problem: int | None
    seconds: float = 0.0


TIMED_OUT = -1


def judge_name(host: str, addresses: Sequence[str], *, proxy: bool) -> Finding:
    """Whether a host name resolves."""
    what = f"the HTTP proxy {host}" if proxy else host
    if addresses:
        more = f" and {len(addresses) - 2} more" if len(addresses) > 2 else ""
        return ok(f"{what} is {', '.join(addresses[:2])}{more}")
    return failed(
        f"{what} does not resolve",
        "Is it spelled right, and does this machine (or container: see its /etc/resolv.conf) resolve other names?\n"
        "    getent hosts example.org",
    )


def judge_connection(host: str, port: int, attempts: Sequence[Attempt], *, proxy: bool) -> Finding:
    """Whether a port can be connected to. The last attempt is the one that counts."""
    what = f"the HTTP proxy {host}:{port}" if proxy else f"{host}:{port}"
    last = attempts[-1]
    if last.problem is None:
        before = f"; {attempts[0].address} does not answer" if len(attempts) > 1 else ""
        return ok(f"{what} connected in {max(1, round(last.seconds * 1000))} ms{before}")
    if proxy:
        reason = "nothing answers" if last.problem == TIMED_OUT else os.strerror(last.problem)
        return failed(f"{what} cannot be reached: {reason}", "Correct HTTPS_PROXY, HTTP_PROXY or NO_PROXY, or mend it.")
    if last.problem == errno.ECONNREFUSED:
        return failed(
            f"{what} refuses connections: the upstream is down, or that is not its port",
            "Is it running, are host and port in the url of this upstream right? What is cached is served meanwhile.",
        )
    reason = "nothing answers" if last.problem == TIMED_OUT else os.strerror(last.problem)
    return failed(
        f"{what} cannot be reached: {reason}",
        "Does a firewall stop this, or is there no way out but an HTTP proxy (HTTPS_PROXY in the environment)? What is "
        "cached is served meanwhile.",
    )


def judge_base(status: int, scheme: str | None, realm_host: str | None, *, is_registrys: bool) -> Finding:
    """The answer to /v2/ without a login; `scheme` is that of the challenge we would answer."""
    if status == 200 and is_registrys:
        return ok("open: no login is asked for")
    if status == 401 and scheme == "bearer":
        return ok(f"wants a token from {realm_host}")
    if status == 401 and scheme == "basic":
        return ok("wants a user name and password (Basic)")
    if status == 429:
        return failed(
            "the registry takes no more requests from here for now (429)",
            "Wait a few minutes; if it stays so, something at this address floods it.",
        )
    if status >= 500:
        return failed(f"/v2/ was answered {status}: the upstream is ill", "Try again later.")
    return failed(
        f"/v2/ was answered {status} without a challenge that we know: that is not a registry",
        "Is the url of this upstream right, or does a proxy or a login page of the network answer in its place?",
    )
