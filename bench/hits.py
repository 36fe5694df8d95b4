"""Work for a cache that has everything already."""

from bench.load import ask_often, holding, pull_often, pulling
from bench.measures import cpu_seconds, resident_mib
from bench.rivals import Rival
from bench.row import Figures, Row, Work
from bench.stand import Stand
from bench.upstream import Place

SMALL_CONNECTIONS = 32
BESIDE_CONNECTIONS = 4
LAYER_CLIENTS = 4
MANY = 64
IDLE = 1000


def small(rows: tuple[Row, Row], path: Place) -> Work:
    """Ask for something small; requests a second, and CPU ms per 1000 of them."""

    def run(stand: Stand, rival: Rival) -> Figures:
        server = stand.warm[rival.name]
        before = cpu_seconds(server.pid)
        requests = ask_often(
            server.port, path(stand.content), connections=SMALL_CONNECTIONS, seconds=stand.form.seconds
        )
        cpu = cpu_seconds(server.pid) - before
        return requests.rate, cpu * 1e6 / requests.count

    return Work(rows[0].title, rows, run)


def warm(rows: tuple[Row, Row], path: Place, clients: int) -> Work:
    """Pull a blob again and again; MB/s, and CPU seconds per GiB."""

    def run(stand: Stand, rival: Rival) -> Figures:
        server = stand.warm[rival.name]
        before = cpu_seconds(server.pid)
        reading = pull_often(server.port, path(stand.content), clients=clients, seconds=stand.form.seconds)
        cpu = cpu_seconds(server.pid) - before
        return reading.megabytes_a_second, cpu / reading.gib

    return Work(rows[0].title, rows, run)


def secure(rows: tuple[Row, Row], path: Place) -> Work:
    """The same over TLS, by one client that decrypts."""

    def run(stand: Stand, rival: Rival) -> Figures:
        where = path(stand.content)
        with stand.secure(rival, where) as server:
            before = cpu_seconds(server.pid)
            reading = pull_often(server.port, where, clients=1, seconds=stand.form.seconds, tls=True)
            cpu = cpu_seconds(server.pid) - before
        return reading.megabytes_a_second, cpu / reading.gib

    return Work(rows[0].title, rows, run)


def aside(rows: tuple[Row, Row]) -> Work:
    """Requests and bodies for a few clients that keep to the last core, so that the others are the server's."""

    def run(stand: Stand, rival: Rival) -> Figures:
        server, content, seconds = stand.warm[rival.name], stand.content, stand.form.seconds
        requests = ask_often(server.port, content.by_digest, connections=LAYER_CLIENTS, seconds=seconds, aside=True)
        reading = pull_often(server.port, content.layer.path, clients=LAYER_CLIENTS, seconds=seconds, aside=True)
        return requests.rate, reading.megabytes_a_second

    return Work("aside", rows, run)


def beside(rows: tuple[Row, Row]) -> Work:
    """Ask for something small while many pull something large; p99 in ms, and their MB/s."""

    def run(stand: Stand, rival: Rival) -> Figures:
        server, content, seconds = stand.warm[rival.name], stand.content, stand.form.seconds
        with pulling(server.port, content.large.path, clients=MANY) as background:
            requests = ask_often(server.port, content.by_digest, connections=BESIDE_CONNECTIONS, seconds=seconds)
        return requests.p99_ms, background.reading.megabytes_a_second

    return Work("small beside large", rows, run)


def idle(row: Row) -> Work:
    """Memory in MiB with many connections open that each have had an answer."""

    def run(stand: Stand, rival: Rival) -> Figures:
        with stand.fresh(rival) as server, holding(server.port, stand.content.by_digest, IDLE):
            return (resident_mib(server.pid),)

    return Work(row.title, (row,), run)
