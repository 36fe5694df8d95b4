"""The side of the upstream that tests hold: start and stop it, read its ledger, make it fail."""

import json
import sys
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from ...ports import free_port
from ..processes import Process, accepts, wait_until
from .keys import SigningKey
from .ledger import Ledger
from .origin import Origin
from .settings import Settings


class Upstream:
    """A private Docker Hub on loopback: registry, token server with one account, quota, CDN."""

    def __init__(
        self,
        directory: Path,
        *,
        public: Collection[str],
        private: Collection[str],
        username: str = "alice",
        pat: str = "dckr_pat_only-for-the-tests",
    ) -> None:
        self.username = username
        self.pat = pat
        self._directory = directory
        self.password_file = directory / "pat"
        self.password_file.write_text(self.pat)
        key = SigningKey.generate()
        key.write(directory / "token.pem")
        front, token, cdn, control = (free_port() for _ in range(4))
        self.origin = Origin(directory, key, realm=f"http://127.0.0.1:{token}/token")
        self._settings = Settings(
            origin=self.origin.url,
            front_port=front,
            token_port=token,
            cdn_port=cdn,
            control_port=control,
            storage=str(self.origin.storage),
            key_file=str(directory / "token.pem"),
            username=self.username,
            pat=self.pat,
            public=sorted(public),
            private=sorted(private),
        )
        self._settings.write(directory / "hub.json")
        self._hub: Process | None = None
        self.violations: list[str] = []  # up to the last reset or stop
        self.start()

    @property
    def port(self) -> int:
        return self._settings.front_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the same ports as ever."""
        command = [sys.executable, "-m", "tests.clients.upstream", str(self._directory / "hub.json")]
        self._hub = Process(command, self._directory / "hub.log")
        wait_until(lambda: accepts(self._settings.control_port), "the hub listens", process=self._hub)

    def stop(self) -> None:
        """Refuse connections from now on; what was running is aborted, and the ledger is lost."""
        if self._hub is not None:
            self.violations += self.ledger.violations
            self._hub.terminate()
            self._hub = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Be down for the length of a `with` block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @property
    def realm(self) -> str:
        """Where its tokens are made."""
        return f"http://127.0.0.1:{self._settings.token_port}/token"

    @property
    def ledger(self) -> Ledger:
        """What it saw since the last reset."""
        return self._command("ledger")

    def reset(self) -> None:
        """Forget what it saw but the violations, end all faults, give every identity its whole quota."""
        self.violations += self._command("reset").violations

    def set_remaining(self, remaining: int) -> None:
        """Leave this many pulls to everybody."""
        self._command("quota", remaining=remaining)

    def know_referrers(self, are_known: bool) -> None:
        """Have the referrers API, or not, as docker-registry; so it is again after a reset."""
        self._command("referrers", are_known=are_known)

    def throttle(self, bytes_per_second: float | None) -> None:
        """Send every blob at this speed; None ends it, also for responses that are running."""
        self._command("throttle", bytes_per_second=bytes_per_second)

    @contextmanager
    def held(self, digest: str, after: int) -> Iterator[None]:
        """Send no more than `after` bytes of any response with this blob during a `with` block, or until `release`."""
        self._command("hold", digest=digest, after=after)
        try:
            yield
        finally:
            self.release(digest)

    def release(self, digest: str) -> None:
        """Let a held blob go on."""
        self._command("release", digest=digest)

    def cut(self, digest: str, after: int, times: int = 1) -> None:
        """Abort the connection after this many bytes of the blob, in as many responses."""
        self._command("cut", digest=digest, after=after, times=times)

    def _command(self, command: str, **body: object) -> Ledger:
        target = f"http://127.0.0.1:{self._settings.control_port}/{command}"
        with urllib.request.urlopen(target, data=json.dumps(body).encode(), timeout=30) as response:
            return Ledger.from_json(json.load(response))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hub is not None:
            self._hub.kill()
        self.origin.process.kill()
