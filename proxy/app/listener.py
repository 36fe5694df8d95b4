"""A listening socket and the server behind it."""

from __future__ import annotations

from aiohttp import web

from proxy.app.errors import StartError
from proxy.config import Address


class Listener:
    """Serves one address: `start`, then `close_door`, then `aclose`."""

    def __init__(self, runner: web.BaseRunner, address: Address, setting: str) -> None:
        self._runner = runner
        self._address = address
        self._setting = setting
        """What the address is called in the configuration."""
        self.url = ""

    async def start(self) -> None:
        """Listen. Raises StartError; `aclose` then, too."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._address.host, self._address.port, backlog=1024).start()
        except OSError as error:
            raise StartError(
                f"cannot listen on {self._address}: {error.strerror or error}. If another program uses it, stop that "
                f"or choose another address with {self._setting}."
            ) from error
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def close_door(self) -> None:
        """Take no new connections; those that are open go on."""
        for site in list(self._runner.sites):
            await site.stop()

    async def aclose(self) -> None:
        """Close the door and every connection."""
        await self._runner.cleanup()
