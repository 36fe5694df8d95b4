"""What `doctor` makes of the two listeners, by table."""

from __future__ import annotations

import errno

import pytest

from proxy.doctor.findings import State
from proxy.doctor.judge.listeners import Presence, Seen, judge_admin, judge_listener, judge_unknown_listener
from proxy.doctor.processes import listening_inodes

URL = "http://127.0.0.1:5000"
SETTING = "[server] listen"


@pytest.mark.parametrize(
    ("presence", "given", "owner", "problem", "text", "cure"),
    [
        (Presence.SOMEBODY_ELSE, False, "nginx (pid 7)", errno.EADDRINUSE, "taken by nginx (pid 7)", "Stop nginx"),
        (Presence.SOMEBODY_ELSE, False, None, errno.EADDRINUSE, "taken by another program", SETTING),
        (Presence.SOMEBODY_ELSE, True, None, None, "taken by another server", f"curl -i {URL}/v2/"),
        (Presence.UNREACHABLE, False, "nc (pid 8)", errno.EADDRINUSE, "taken by nc (pid 8)", "Stop nc"),
        (Presence.UNREACHABLE, False, None, errno.EADDRINUSE, "does not answer as a web server", "its log says why"),
        (Presence.UNREACHABLE, True, None, None, "cannot be asked", "firewall"),
        (Presence.NOBODY, False, None, errno.EACCES, "Permission denied", "Ports below 1024"),
        (Presence.NOBODY, False, None, errno.EADDRNOTAVAIL, "Cannot assign", "none of this machine"),
        (Presence.NOBODY, False, None, errno.EADDRINUSE, "already in use", "Choose another address"),
        (Presence.NOBODY, True, None, None, "cannot be asked", "is the cache running there"),
    ],
)
def test_what_is_wrong_with_the_client_listener_is_named(
    presence: Presence, given: bool, owner: str | None, problem: int | None, text: str, cure: str
) -> None:
    finding = judge_listener(
        URL, Seen(presence, "seen"), given=given, setting=SETTING, owner=owner, bind_problem=problem
    )
    assert finding.state is State.FAILED
    assert text in finding.text
    assert cure in (finding.cure or "")


def test_a_client_listener_that_is_ours_or_free_is_well() -> None:
    for presence in (Presence.OURS, Presence.NOBODY):
        assert judge_listener(URL, Seen(presence, "seen"), given=False, setting=SETTING).state is State.OK


def test_a_port_that_the_system_chooses_is_not_known() -> None:
    assert judge_unknown_listener(SETTING).text.endswith("; name it with --url")
    assert judge_unknown_listener("[admin] listen").state is State.SKIPPED


@pytest.mark.parametrize(
    ("status", "serving", "state", "text"),
    [
        (200, True, State.OK, "says ready"),
        (503, True, State.FAILED, "says not ready"),
        (404, True, State.FAILED, "that is not pullthrough"),
        (None, True, State.FAILED, "cannot be asked: refused"),
        (None, None, State.FAILED, "cannot be asked: refused"),
        (None, False, State.SKIPPED, "is not running"),
    ],
)
def test_the_admin_listener_is_known_by_its_answer(
    status: int | None, serving: bool | None, state: State, text: str
) -> None:
    finding = judge_admin(URL, status, "refused", serving=serving)
    assert finding.state is state
    assert text in finding.text


def test_who_listens_is_read_from_the_kernel_s_table() -> None:
    table = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1
   1: 0100007F:1388 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 222 1
   2: 0100007F:1389 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1
"""
    assert listening_inodes(table, 5000) == {"111"}
    assert listening_inodes("", 5000) == set()
