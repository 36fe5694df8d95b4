"""What a look at the two listeners means."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import Enum

from proxy.doctor.findings import Finding, failed, ok, skipped

_PORT_ZERO = "has port 0: the system chooses, so the port is not known here"


class Presence(Enum):
    """Who answers at an address."""

    OURS = "ours"
    NOBODY = "nobody"
    SOMEBODY_ELSE = "somebody else"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Seen:
    """What an address looks like from here; `detail` is for people."""

    presence: Presence
    detail: str


def judge_listener(
    url: str, seen: Seen, *, given: bool, setting: str, owner: str | None = None, bind_problem: int | None = None
) -> Finding:
    """The client listener at `url`. `owner` has its port; `bind_problem` is why this user could not listen there."""
    if seen.presence is Presence.OURS:
        return ok(f"{url} {seen.detail}, as pullthrough does")
    if seen.presence is Presence.SOMEBODY_ELSE or owner is not None:
        who = owner or ("another program" if not given else "another server")
        cure = f"Stop {who}, or choose another address with {setting}." if not given else _wrong_url(url)
        return failed(f"{url} is taken by {who}: {seen.detail}", cure)
    if given:
        return failed(f"{url} cannot be asked: {seen.detail}", _wrong_url(url))
    if seen.presence is Presence.UNREACHABLE:
        return failed(
            f"{url} does not answer as a web server does: {seen.detail}",
            f"If pullthrough runs there, its log says why; restart it. If not, choose another port with {setting}.",
        )
    if bind_problem is not None:
        return failed(
            f"this user cannot listen on {url}: {os.strerror(bind_problem)}", _bind_cure(bind_problem, setting)
        )
    return ok(f"{url} is free; pullthrough is not running")


def judge_unknown_listener(setting: str) -> Finding:
    """A listener on a port that the system chooses."""
    return skipped(f"{setting} {_PORT_ZERO}" + ("; name it with --url" if "server" in setting else ""))


def judge_admin(url: str, status: int | None, problem: str, *, serving: bool | None) -> Finding:
    """The admin listener's answer to /readyz; `status` None: none came, because of `problem`."""
    if status == 200:
        return ok(f"{url}/readyz says ready")
    if status == 503:
        return failed(f"{url}/readyz says not ready", "It is starting or stopping: ask again in a moment; see its log.")
    if status is not None:
        return failed(
            f"{url}/readyz was answered {status}: that is not pullthrough",
            "Give [admin] listen an address of its own, the same in all configurations.",
        )
    if serving is False:
        return skipped("pullthrough is not running")
    return failed(
        f"{url} cannot be asked: {problem}",
        "The cache runs, so it has another [admin] listen: run doctor with the configuration of the running process.",
    )


def _wrong_url(url: str) -> str:
    return f"Is the URL right, is the cache running there, and does a firewall let you through?\n    curl -i {url}/v2/"


def _bind_cure(problem: int, setting: str) -> str:
    if problem in (errno.EACCES, errno.EPERM):
        return f"Ports below 1024 need a privilege: choose a port above with {setting}."
    if problem == errno.EADDRNOTAVAIL:
        return f'That address is none of this machine: choose another with {setting}, such as "0.0.0.0:5000".'
    return f"Choose another address with {setting}."
