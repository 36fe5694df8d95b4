"""Work for a cache that has to fetch: each on a fresh server."""

from bench.load import pull
from bench.measures import cpu_seconds, cpu_seconds_when_idle, peak_mib, resident_mib
from bench.rivals import Rival
from bench.row import Figures, Row, Work
from bench.stand import Stand
from bench.upstream import Place


def cold(rows: tuple[Row, Row, Row, Row]) -> Work:
    """Pull a blob; MB/s, CPU seconds per GiB, ms to the first byte, MiB of memory before it."""

    def run(stand: Stand, rival: Rival) -> Figures:
        with stand.fresh(rival) as server:
            idle, before = resident_mib(server.pid), cpu_seconds(server.pid)
            reading = pull(server.port, stand.content.large.path)
            cpu = cpu_seconds_when_idle(server.pid) - before
        return reading.megabytes_a_second, cpu / reading.gib, reading.first_bytes[0] * 1e3, idle

    return Work("cold", rows, run)


def slow_upstream(rows: tuple[Row, Row], bytes_a_second: int) -> Work:
    """Pull a blob from an upstream that is slow by the connection; MB/s, and CPU seconds per GiB."""

    def run(stand: Stand, rival: Rival) -> Figures:
        with stand.slow(rival, bytes_a_second) as (server, _):
            before = cpu_seconds(server.pid)
            reading = pull(server.port, stand.content.large.path)
            cpu = cpu_seconds_when_idle(server.pid) - before
        return reading.megabytes_a_second, cpu / reading.gib

    return Work("capped", rows, run)


def crowd(rows: tuple[Row, Row, Row, Row], path: Place, clients: int, *, once: bool = False) -> Work:
    """Let many pull one blob at the same time; seconds, upstream fetches, ms to the last first byte, peak MiB."""

    def run(stand: Stand, rival: Rival) -> Figures:
        where, start = path(stand.content), stand.upstream.mark()
        with stand.fresh(rival) as server:
            reading = pull(server.port, where, clients=clients)
            peak = peak_mib(server.pid)
        fetches = stand.upstream.fetches(where, since=start)
        return reading.seconds, fetches, max(reading.first_bytes) * 1e3, peak

    return Work(rows[0].title, rows, run, once=once)
