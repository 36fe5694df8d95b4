"""The hub process: front, token server, CDN and control on one event loop, until SIGTERM."""

import asyncio
import signal
import sys
from pathlib import Path

from aiohttp import web

from .cdn import cdn_app
from .control import control_app
from .faults import Faults
from .front import Front
from .keys import SigningKey
from .ledger import Ledger
from .quota import Quota
from .referrers import Referrers
from .settings import Settings
from .signing import Signer
from .tokens import token_app


async def serve(settings: Settings) -> None:
    """Listen on all four ports until told to stop; running responses are then aborted, as by a machine that dies."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    ledger, quota, faults, signer = Ledger(), Quota(), Faults(), Signer()
    key, referrers = SigningKey.read(Path(settings.key_file)), Referrers(Path(settings.storage))
    listeners = {
        settings.front_port: Front(settings, key, ledger, quota, signer, referrers).app(),
        settings.token_port: token_app(settings, key, ledger),
        settings.cdn_port: cdn_app(settings, ledger, faults, signer),
        settings.control_port: control_app(ledger, quota, faults, referrers),
    }
    runners = [(web.AppRunner(app, access_log=None, shutdown_timeout=0), port) for port, app in listeners.items()]
    for runner, port in runners:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
    await stopped.wait()
    for runner, _ in runners:
        await runner.cleanup()


asyncio.run(serve(Settings.read(Path(sys.argv[1]))))
