"""The door for the tests: read the ledger, set the quota, cause faults."""

from aiohttp import web

from .faults import Faults
from .ledger import Ledger
from .quota import Quota
from .referrers import Referrers


def control_app(ledger: Ledger, quota: Quota, faults: Faults, referrers: Referrers) -> web.Application:
    """Build the control listener; a command is a POST of a JSON object, answered with the ledger as it found it."""

    async def command(request: web.Request) -> web.Response:
        body, seen = await request.json(), ledger.as_json()
        match request.match_info["command"]:
            case "reset":
                ledger.reset()
                faults.reset()
                quota.reset()
                referrers.are_known = False
            case "quota":
                quota.set_remaining(body["remaining"])
            case "referrers":
                referrers.are_known = body["are_known"]
            case "throttle":
                faults.bytes_per_second = body["bytes_per_second"]
            case "hold":
                faults.hold(body["digest"], body["after"])
            case "release":
                faults.release(body["digest"])
            case "cut":
                faults.cut(body["digest"], body["after"], body["times"])
            case "ledger":
                pass
            case unknown:
                raise web.HTTPNotFound(text=unknown)
        return web.json_response(seen)

    app = web.Application()
    app.router.add_post("/{command}", command)
    return app
