"""The table, row by row: what is done to each rival, and which figures that gives."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from bench.load import ask_often, pull, pull_often, pulling
from bench.measures import cpu_seconds, cpu_seconds_when_idle, peak_mib, resident_mib
from bench.rivals import Rival
from bench.stand import Form, Stand
from bench.upstream import MIB, Blob, Content

SMALL_CONNECTIONS = 32
BESIDE_CONNECTIONS = 4
LAYER_CLIENTS = 4
MANY = 64
CAP = 50_000_000  # bytes a second; nginx and docker-registry use one connection, so theirs is that of a direct pull

Figures = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity of the table."""

    title: str
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """One thing done to each rival in turn; `run` returns one figure for each row."""

    name: str
    rows: tuple[Row, ...]
    run: Callable[[Stand, Rival], Figures]
    once: bool = False  # in the first round only, because it takes long


def works(form: Form) -> tuple[Work, ...]:
    """Return the work of a form, in the order of the table."""
    large, many = f"{form.large // MIB} MiB", f"{form.crowd // MIB} MiB"
    return (
        small("manifest by digest", attrgetter("by_digest")),
        small("manifest by fresh tag", attrgetter("by_tag")),
        small("config blob", attrgetter("config.path")),
        warm(f"4 MiB warm, {LAYER_CLIENTS} clients", attrgetter("layer"), LAYER_CLIENTS),
        warm(f"{large} warm, 1 client", attrgetter("large"), 1),
        secure(f"{large} warm over TLS, 1 client", attrgetter("large")),
        Work(
            "small beside large",
            (
                Row(f"manifest beside {MANY} downloads: p99", "ms"),
                Row(f"{MANY} downloads beside manifests", "MB/s", True),
            ),
            beside,
        ),
        Work(
            "cold",
            (
                Row(f"{large} cold, 1 client", "MB/s", True),
                Row(f"{large} cold, 1 client: CPU", "s per GiB"),
                Row(f"{large} cold, 1 client: first byte", "ms"),
                Row("memory, idle", "MiB"),
            ),
            cold,
        ),
        Work(
            "capped",
            (
                Row(f"{large} cold, upstream at {CAP // 10**6} MB/s a connection", "MB/s", True),
                Row(f"{large} cold, upstream at {CAP // 10**6} MB/s a connection: CPU", "s per GiB"),
            ),
            slow_upstream,
        ),
        crowd(16, many, attrgetter("crowd")),
        crowd(MANY, many, attrgetter("crowd")),
        *([crowd(MANY, f"{form.huge // MIB} MiB", attrgetter("huge"), once=True)] if form.huge else []),
    )


def small(name: str, path: Callable[[Content], str]) -> Work:
    """Ask a warm cache for something small."""

    def run(stand: Stand, rival: Rival) -> Figures:
        server = stand.warm[rival.name]
        before = cpu_seconds(server.pid)
        requests = ask_often(
            server.port, path(stand.content), connections=SMALL_CONNECTIONS, seconds=stand.form.seconds
        )
        cpu = cpu_seconds(server.pid) - before
        return requests.rate, cpu * 1e6 / requests.count

    return Work(name, (Row(name, "requests/s", True), Row(f"{name}: CPU", "ms per 1000 requests")), run)


def warm(name: str, blob: Callable[[Content], Blob], clients: int) -> Work:
    """Pull a blob from a warm cache again and again."""

    def run(stand: Stand, rival: Rival) -> Figures:
        server = stand.warm[rival.name]
        before = cpu_seconds(server.pid)
        reading = pull_often(server.port, blob(stand.content).path, clients=clients, seconds=stand.form.seconds)
        cpu = cpu_seconds(server.pid) - before
        return reading.megabytes_a_second, cpu / reading.gib

    return Work(name, (Row(name, "MB/s", True), Row(f"{name}: CPU", "s per GiB")), run)


def secure(name: str, blob: Callable[[Content], Blob]) -> Work:
    """The same over TLS, by one client that decrypts."""

    def run(stand: Stand, rival: Rival) -> Figures:
        path = blob(stand.content).path
        with stand.secure(rival, path) as server:
            before = cpu_seconds(server.pid)
            reading = pull_often(server.port, path, clients=1, seconds=stand.form.seconds, tls=True)
            cpu = cpu_seconds(server.pid) - before
        return reading.megabytes_a_second, cpu / reading.gib

    return Work(name, (Row(name, "MB/s", True), Row(f"{name}: CPU", "s per GiB")), run)


def beside(stand: Stand, rival: Rival) -> Figures:
    """Ask for something small while many pull something large."""
    server, content = stand.warm[rival.name], stand.content
    with pulling(server.port, content.large.path, clients=MANY) as background:
        requests = ask_often(server.port, content.by_digest, connections=BESIDE_CONNECTIONS, seconds=stand.form.seconds)
    return requests.p99_ms, background.reading.megabytes_a_second


def cold(stand: Stand, rival: Rival) -> Figures:
    """Pull a blob through an empty cache."""
    with stand.fresh(rival) as server:
        idle, before = resident_mib(server.pid), cpu_seconds(server.pid)
        reading = pull(server.port, stand.content.large.path)
        cpu = cpu_seconds_when_idle(server.pid) - before
    return reading.megabytes_a_second, cpu / reading.gib, reading.first_bytes[0] * 1e3, idle


def slow_upstream(stand: Stand, rival: Rival) -> Figures:
    """Pull a blob through an empty cache whose upstream is slow by the connection."""
    with stand.slow(rival, CAP) as server:
        before = cpu_seconds(server.pid)
        reading = pull(server.port, stand.content.large.path)
        cpu = cpu_seconds_when_idle(server.pid) - before
    return reading.megabytes_a_second, cpu / reading.gib


def crowd(clients: int, size: str, blob: Callable[[Content], Blob], *, once: bool = False) -> Work:
    """Let many clients pull one blob through an empty cache at the same time."""
    name = f"{clients} clients, one cold {size} blob"

    def run(stand: Stand, rival: Rival) -> Figures:
        path, start = blob(stand.content).path, stand.upstream.mark()
        with stand.fresh(rival) as server:
            reading = pull(server.port, path, clients=clients)
            peak = peak_mib(server.pid)
        fetches = stand.upstream.fetches(path, since=start)
        return reading.seconds, fetches, max(reading.first_bytes) * 1e3, peak

    rows = (
        Row(f"{name}: all done", "s"),
        Row(f"{name}: upstream fetches", "fetches"),
        Row(f"{name}: last first byte", "ms"),
        Row(f"{name}: peak memory", "MiB"),
    )
    return Work(name, rows, run, once=once)
