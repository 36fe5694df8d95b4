"""The table, row by row, with the goals: what is done to each rival, and in which order."""

from operator import attrgetter

from bench.docker_pull import pull_image, pull_image_slowly
from bench.fills import cold, crowd, slow_upstream
from bench.goal import Goal
from bench.hits import IDLE, LAYER_CLIENTS, MANY, aside, beside, idle, secure, small, warm
from bench.image import LAYERS
from bench.rivals import DOCKER_REGISTRY, NGINX, TWO_WORKERS
from bench.rivals import OURS as ONE_WORKER
from bench.row import Row, Work
from bench.stand import Form
from bench.upstream import MIB

CAP = 50_000_000  # bytes a second; nginx and docker-registry use one connection, so theirs is that of a direct pull
NO_SLOWER = Goal(must=1.0, aim=1.05, ours=TWO_WORKERS.name, against=ONE_WORKER.name)


def works(form: Form, *, docker: bool) -> tuple[Work, ...]:
    """Return the work of a form, in the order of the table; real `docker pull`s among it if that can be had."""
    return (*_hits(form), *_fills(form), *(_docker_pulls() if docker else ()))


def _hits(form: Form) -> tuple[Work, ...]:
    large = f"{form.large // MIB} MiB"
    return (
        small(_small("manifest by digest", 10, 20, guard=4), attrgetter("by_digest")),
        small(_small("manifest by fresh tag", 50, 100, guard=4), attrgetter("by_tag")),
        small(_small("config blob", 10, 20, guard=5), attrgetter("config.path")),
        warm(_warm(f"4 MiB warm, {LAYER_CLIENTS} clients"), attrgetter("layer.path"), LAYER_CLIENTS),
        warm(_warm(f"{large} warm, 1 client"), attrgetter("large.path"), 1),
        secure(
            (
                Row(f"{large} warm over TLS, 1 client", "MB/s", True, (_nginx(0.8, 1.0),)),
                Row(f"{large} warm over TLS, 1 client: CPU", "s per GiB"),
            ),
            attrgetter("large.path"),
        ),
        beside(
            (
                Row(f"manifest beside {MANY} downloads: p99", "ms", goals=(Goal(must=15, aim=5),)),
                Row(f"{MANY} downloads beside manifests", "MB/s", True),
            )
        ),
        aside(
            (
                Row(f"manifest by digest, {LAYER_CLIENTS} clients on one core", "requests/s", True, (NO_SLOWER,)),
                Row(f"4 MiB warm, {LAYER_CLIENTS} clients on one core", "MB/s", True, (NO_SLOWER,)),
            )
        ),
        idle(Row(f"memory, {IDLE} idle connections", "MiB", goals=(Goal(must=120, aim=80),))),
    )


def _fills(form: Form) -> tuple[Work, ...]:
    large, many, huge = (f"{size // MIB} MiB" for size in (form.large, form.crowd, form.huge))
    capped = f"{large} cold, upstream at {CAP // 10**6} MB/s a connection"
    return (
        cold(
            (
                Row(f"{large} cold, 1 client", "MB/s", True, (_nginx(0.9, 1.15),)),
                Row(f"{large} cold, 1 client: CPU", "s per GiB", goals=(Goal(must=2.2, aim=1.6),), guard=6),
                Row(f"{large} cold, 1 client: first byte", "ms"),
                Row("memory, idle", "MiB", goals=(Goal(must=60, aim=40),)),
            )
        ),
        slow_upstream((Row(capped, "MB/s", True, (_nginx(2.5, 3.5),)), Row(f"{capped}: CPU", "s per GiB")), CAP),
        *(crowd(_crowd(many, clients), attrgetter("crowd.path"), clients) for clients in (16, MANY)),
        *([crowd(_crowd(huge, MANY, 90, 60), attrgetter("huge.path"), MANY, once=True)] if form.huge else ()),
    )


def _docker_pulls() -> tuple[Work, ...]:
    name, slow = f"docker pull, {LAYERS} layers", f"upstream at {CAP // 10**6} MB/s a connection"
    return (
        pull_image((Row(f"{name}: direct", "s"), Row(f"{name}: cold", "s"), Row(f"{name}: warm", "s"))),
        pull_image_slowly((Row(f"{name}, {slow}: direct", "s"), Row(f"{name}, {slow}: cold", "s")), CAP),
    )


def _nginx(must: float, aim: float) -> Goal:
    return Goal(must=must, aim=aim, against=NGINX.name)


def _small(name: str, must: float, aim: float, *, guard: float) -> tuple[Row, Row]:
    """Rows of requests, with what they have to be of docker-registry's."""
    goals = (_nginx(0.6, 1.0), Goal(must=must, aim=aim, against=DOCKER_REGISTRY.name))
    return Row(name, "requests/s", True, goals), Row(f"{name}: CPU", "ms per 1000 requests", guard=guard)


def _warm(name: str) -> tuple[Row, Row]:
    cpu = Row(f"{name}: CPU", "s per GiB", goals=(_nginx(1.5, 1.0),), guard=3)
    return Row(name, "MB/s", True, (_nginx(0.9, 1.0),)), cpu


def _crowd(size: str, clients: int, must: float | None = None, aim: float = 0) -> tuple[Row, Row, Row, Row]:
    """Rows of a crowd, with what memory may be at most, in MiB, where that is a goal."""
    name = f"{clients} clients, one cold {size} blob"
    return (
        Row(f"{name}: all done", "s", goals=(_nginx(1.0, 1 / 1.2),)),
        Row(f"{name}: upstream fetches", "fetches", goals=(Goal(must=1, aim=1),)),
        Row(f"{name}: last first byte", "ms", goals=(Goal(must=50, aim=10),)),
        Row(f"{name}: peak memory", "MiB", goals=(Goal(must=must, aim=aim),) if must else ()),
    )
