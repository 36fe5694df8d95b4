"""The checks of what is on this machine: folder, listeners."""

from __future__ import annotations

import errno
import socket

from proxy.config import Address
from proxy.doctor import folder
from proxy.doctor.cache import Unanswered, place_of
from proxy.doctor.case import Case
from proxy.doctor.findings import Finding, skipped
from proxy.doctor.judge.folder import judge_folder
from proxy.doctor.judge.listeners import Presence, judge_admin, judge_listener, judge_unknown_listener
from proxy.doctor.processes import port_owner
from proxy.doctor.threads import in_thread


async def check_folder(case: Case) -> Finding:
    """The cache folder: usable, with room, and not held by somebody else."""
    path = case.config.cache.directory
    found = await in_thread(lambda: folder.look_at(path))
    # A cache on another machine says nothing about who holds a folder here.
    serving = await case.cache.is_ours() if not case.cache.given else None
    return judge_folder(found, folder.user_name(), serving=serving)


async def check_listener(case: Case) -> Finding:
    """The client listener: ours, or free."""
    listen, setting = case.config.server.listen, "[server] listen"
    seen, place = await case.cache.seen(), case.cache.place
    if seen is None or place is None:
        return judge_unknown_listener(setting)
    if seen.presence is Presence.OURS or case.cache.given:
        return judge_listener(str(place), seen, given=case.cache.given, setting=setting)
    problem = await in_thread(lambda: _bind_problem(listen)) if seen.presence is Presence.NOBODY else errno.EADDRINUSE
    owner = await in_thread(lambda: port_owner(listen.port)) if problem == errno.EADDRINUSE else None
    return judge_listener(str(place), seen, given=False, setting=setting, owner=owner, bind_problem=problem)


async def check_admin(case: Case) -> Finding:
    """The admin listener: ready to serve."""
    place, server = place_of(case.config.admin.listen), case.config.server
    if case.cache.given and case.cache.place != place_of(server.listen, server.scheme):
        return skipped("the cache is not the one of this configuration: its admin listener is not known here")
    if place is None:
        return judge_unknown_listener("[admin] listen")
    status, problem = None, ""
    try:
        status = (await case.cache.ask(place, "/readyz")).status
    except Unanswered as error:
        problem = str(error)
    return judge_admin(str(place), status, problem, serving=await case.cache.is_ours())


def _bind_problem(listen: Address) -> int | None:
    """The error number of listening there, which is given up at once."""
    try:
        found = socket.getaddrinfo(listen.host or None, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found[:1]:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(address)
    except OSError as error:
        return error.errno
    return None
