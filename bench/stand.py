"""The stand: the upstream, a warm server of each rival for the whole run, and fresh servers for what is cold."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.capped import capped
from bench.certificate import Pair, make_pair
from bench.errors import BenchError
from bench.load import pull
from bench.measures import cpu_seconds_when_idle
from bench.rivals import Rival, Server, serving
from bench.upstream import MIB, Content, Upstream, make_content, upstream
from tests.clients.dockerd import Dockerd, dockerd


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How long a run takes and how much it shows."""

    name: str
    rounds: int
    seconds: int
    large: int = 256 * MIB
    crowd: int = 128 * MIB
    huge: int = 0


SHORT = Form(name="short", rounds=1, seconds=1, crowd=64 * MIB)
DEFAULT = Form(name="default", rounds=3, seconds=2)
GUARD = Form(name="guard", rounds=1, seconds=1, crowd=MIB)
FULL = Form(name="full", rounds=5, seconds=4, crowd=256 * MIB, huge=1024 * MIB)


@dataclass(frozen=True, slots=True)
class Stand:
    """Everything a piece of work needs."""

    directory: Path
    form: Form
    upstream: Upstream
    warm: dict[str, Server]
    pair: Pair
    daemon: Dockerd | None

    @property
    def content(self) -> Content:
        """What can be pulled."""
        return self.upstream.content

    @contextmanager
    def fresh(self, rival: Rival) -> Iterator[Server]:
        """Run one more server of a rival, with an empty cache; it has answered one manifest and is ready for more."""
        with serving(rival, self.directory, self.upstream.url) as server:
            pull(server.port, self.content.by_digest)
            yield server

    @contextmanager
    def slow(self, rival: Rival, bytes_a_second: int) -> Iterator[tuple[Server, int]]:
        """Run one more, whose upstream is slow by the connection; yield the port of that, too."""
        with (
            capped(self.directory, self.upstream.port, bytes_a_second) as port,
            serving(rival, self.directory, f"http://127.0.0.1:{port}") as server,
        ):
            pull(server.port, self.content.by_digest)
            yield server, port

    @contextmanager
    def secure(self, rival: Rival, path: str) -> Iterator[Server]:
        """Run one more server of a rival, which speaks TLS and has this blob already."""
        with serving(rival, self.directory, self.upstream.url, self.pair) as server:
            pull(server.port, path, tls=True)
            cpu_seconds_when_idle(server.pid)
            yield server


@contextmanager
def standing(directory: Path, form: Form, rivals: Sequence[Rival], *, docker: bool = False) -> Iterator[Stand]:
    """Build the stand in an empty folder and warm the caches, with a dockerd if wanted; take it down at the end."""
    hub = directory / "upstream"
    hub.mkdir()
    content = make_content(hub / "files", large=form.large, crowd=form.crowd, huge=form.huge, with_image=docker)
    with ExitStack() as stack:
        registry = stack.enter_context(upstream(hub, content))
        warm = {rival.name: stack.enter_context(serving(rival, directory, registry.url)) for rival in rivals}
        for name, server in warm.items():
            _warm_up(name, server, registry)
        daemon = _daemon(stack, registry, directory / "dockerd.log") if docker else None
        yield Stand(directory, form, registry, warm, make_pair(directory), daemon)


def _daemon(stack: ExitStack, registry: Upstream, log: Path) -> Dockerd:
    """Start a dockerd, which goes with the stack; `AssertionError` is how its rig says that it did not come up."""
    try:
        return stack.enter_context(dockerd(registry.url, log))
    except AssertionError as error:
        raise BenchError(f"dockerd: {str(error).strip().splitlines()[-1]}") from error


def _warm_up(name: str, server: Server, registry: Upstream) -> None:
    """Pull everything that warm rows pull, and see that the cache then has no need of upstream."""
    content = registry.content
    blobs = (content.config.path, content.layer.path, content.large.path)
    for path in (content.by_digest, content.by_tag, *blobs):
        pull(server.port, path)
    cpu_seconds_when_idle(server.pid)  # docker-registry stores in the background, by a fetch of its own
    since = registry.mark()
    for path in blobs:
        pull(server.port, path)
        if registry.fetches(path, since=since):
            raise BenchError(f"{name} does not keep what it fetched: it asked upstream for {path} again")
