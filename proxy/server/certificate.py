"""The certificate of the client listener as it is now: it is renewed while we run, and nobody has to tell us.

What renews it (certbot, cert-manager) replaces two files, one after the other. So a pair that cannot be used is no
reason to stop: the one before stays, and the files are looked at again when they change again, or on a reload.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.certificates import CertificateError, server_context
from proxy.config import ServerOptions

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 60.0
"""How often the files are looked at."""

_Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, read; `stamp` is what the files looked like just before."""

    files: tuple[Path, Path]
    stamp: _Stamp
    context: ssl.SSLContext


async def read_pair(options: ServerOptions) -> Pair | None:
    """What these settings name, None where they name nothing. Raises CertificateError."""
    if options.tls_certificate is None or options.tls_key is None:
        return None
    return await asyncio.to_thread(_read, (options.tls_certificate, options.tls_key))


class Certificate:
    """What new connections get. `start`, then `aclose`; it is watched in between."""

    def __init__(self) -> None:
        self._pair: Pair | None = None
        self._seen: _Stamp = ()
        self._watching: asyncio.Task[None] | None = None

    @property
    def context(self) -> ssl.SSLContext | None:
        """For the next connection; None if it is to be without TLS."""
        return None if self._pair is None else self._pair.context

    def use(self, pair: Pair | None) -> None:
        """From now on; connections that there are go on as they began."""
        self._pair = pair
        self._seen = () if pair is None else pair.stamp

    async def start(self) -> None:
        """Watch the files."""
        self._watching = asyncio.get_running_loop().create_task(self._watch(), name="certificate")

    async def aclose(self) -> None:
        """Stop that."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._pair is not None:
                await self._look(self._pair)

    async def _look(self, before: Pair) -> None:
        """Take the files if they have changed; what is wrong with them is said once for each change."""
        stamp = await asyncio.to_thread(_stamp, before.files)
        if stamp == self._seen:
            return
        try:
            pair = await asyncio.to_thread(_read, before.files)
        except CertificateError as error:
            self._seen = stamp
            log.error("the certificate for clients has changed and is not taken, the one before stays: %s", error)
            return
        if self._pair is before:  # Otherwise a reload was faster.
            self.use(pair)
            log.info("the certificate for clients has changed: new connections get the new one")


def _read(files: tuple[Path, Path]) -> Pair:
    """Blocking. Raises CertificateError."""
    stamp = _stamp(files)
    return Pair(files, stamp, server_context(*files))


def _stamp(files: tuple[Path, Path]) -> _Stamp:
    return tuple(_stamp_of(path) for path in files)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
