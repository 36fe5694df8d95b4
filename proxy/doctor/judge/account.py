"""What the answers of a token server and of a registry say of our account.

The texts of answers are recognised, never repeated: a server can echo what it was sent.
"""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from proxy.config import UpstreamOptions
from proxy.doctor.findings import Finding, failed, ok, skipped
from proxy.oci.names import DOCKER_HUB
from proxy.policy.quota import read_quota
from proxy.units import format_duration

PROBE: Final = "ratelimitpreview/test"
"""Docker's own repository for asking about the quota (PROTOCOL 1.5)."""


def judge_login(options: UpstreamOptions, status: int, body: bytes, *, has_token: bool) -> Finding:
    """The answer to our login, or to asking anonymously where no account is configured."""
    if status == 200:
        return _logged_in(options, has_token=has_token)
    said = body.decode(errors="replace").lower()
    if status == 429:
        return _login_limited(options, "login" in said)
    if status in (401, 403) and options.username is None:
        return failed(
            f"nobody gets a token anonymously ({status})",
            "Give this upstream a username and a password_file.",
        )
    if status in (401, 403) and "expired" in said:
        return failed(f"the access token of {options.username} has expired", _new_token(options))
    if status in (401, 403) and "scope" in said:
        return failed(f"the access token of {options.username} is not allowed to pull", _new_token(options))
    if status in (401, 403):
        return failed(f"the username {options.username} or its access token is wrong", _new_token(options))
    return failed(
        f"the token server answered {status}",
        "That is upstream's trouble: try again later; for Docker Hub see https://www.dockerstatus.com",
    )


def _logged_in(options: UpstreamOptions, *, has_token: bool) -> Finding:
    if not has_token:
        return failed(
            "the token server answered without a token",
            "Something in between answers in its place: a proxy, or a login page of the network?",
        )
    if options.username is not None:
        return ok(f"logged in as {options.username}")
    more = "; DOCKERHUB_USERNAME and DOCKERHUB_TOKEN raise the limit" if options.name == DOCKER_HUB else ""
    return ok(f"anonymously{more}")


def _login_limited(options: UpstreamOptions, locked: bool) -> Finding:
    if locked and options.username is not None:
        return failed(
            f"logins of {options.username} are locked after too many failed ones, right passwords too (429)",
            "Wait 15 minutes without any login, find out where a wrong password is in use, then run this again.",
        )
    return failed(
        "the token server takes no more requests from here for now (429)",
        "Wait a few minutes; if it stays so, something at this address floods it.",
    )


def _new_token(options: UpstreamOptions) -> str:
    where = options.password_file or "DOCKERHUB_TOKEN in the environment"
    mail = " The username is the Docker ID, not an e-mail address." if "@" in (options.username or "") else ""
    if options.name == DOCKER_HUB:
        return (
            "At https://app.docker.com/settings/personal-access-tokens make one with Public Repo Read-only, and put it "
            f"into {where}.{mail}"
        )
    return f"Check the username, make a new access token that may read packages, and put it into {where}."


def granted(token: str, repository: str) -> bool | None:
    """Whether a token says that it lets pull (PROTOCOL 1.6); None if it says nothing, as it need not."""
    parts = token.split(".")
    try:
        payload: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "==")) if len(parts) == 3 else None
    except (ValueError, RecursionError):
        return None
    access = payload.get("access") if isinstance(payload, dict) else None
    if not isinstance(access, list):
        return None
    entries = [each for each in access if isinstance(each, dict) and each.get("name") == repository]
    return any("pull" in (each.get("actions") or ()) for each in entries)


def judge_scope(options: UpstreamOptions, status: int, *, lets_pull: bool | None) -> Finding:
    """What the registry says to our token: for `PROBE` on Docker Hub, else for the base of its API."""
    hub = options.name == DOCKER_HUB
    if status == 200:
        return ok(f"may pull (asked with HEAD of {PROBE})" if hub else "the registry takes it")
    if status == 429:
        return failed(
            "the registry takes no more requests from here for now (429)",
            "Wait a few minutes; if it stays so, something at this address floods it.",
        )
    if status in (401, 403, 404) and hub and not is_docker_hub_itself(options):
        return skipped(f"this registry gives no {PROBE}: it is not Docker Hub itself")
    if status in (401, 403) and hub:
        why = "its token grants nothing" if lets_pull is False else str(status)
        return failed(f"the login does not let pull ({why})", _new_token(options))
    if status in (401, 403) and options.username is not None:
        return failed(f"the registry refuses the login of {options.username} ({status})", _new_token(options))
    if status in (401, 403):
        return skipped("cannot be told without naming a repository")
    return failed(
        f"the registry answered {status}",
        "That is upstream's trouble: try again later; for Docker Hub see https://www.dockerstatus.com",
    )


def is_docker_hub_itself(options: UpstreamOptions) -> bool:
    """Whether this is Docker's own registry, rather than another that holds its images."""
    return options.name == DOCKER_HUB and (urlsplit(options.url).hostname or "").endswith(".docker.io")


def judge_quota(options: UpstreamOptions, headers: Mapping[str, str], now: float) -> Finding:
    """What the headers of a manifest say of the pull limit."""
    quota = read_quota(headers, now)
    whose = _whose(headers.get("docker-ratelimit-source", "").strip())
    if quota is None:
        return ok(f"no limit headers: unlimited or sponsored{whose}")
    limit = "an unknown limit" if quota.limit is None else str(quota.limit)
    window = "" if quota.window is None else f" in {format_duration(quota.window)}"
    if quota.remaining == 0:
        cure = "What is cached is served meanwhile. Wait; the window slides. "
        cure += (
            "An account has a limit of its own: DOCKERHUB_USERNAME and DOCKERHUB_TOKEN."
            if options.username is None
            else "Who else pulls with this account? A paid one has no limit."
        )
        return failed(f"no pulls left of {limit}{window}{whose}", cure)
    left = "an unknown number" if quota.remaining is None else str(quota.remaining)
    return ok(f"{left} pulls left of {limit}{window}{whose}")


def _whose(source: str) -> str:
    """For whom pulls are counted. An account is a number of no use to people."""
    try:
        return f", counted for the address {ipaddress.ip_address(source)}"
    except ValueError:
        return ", counted for the account" if source else ""
