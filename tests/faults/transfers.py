"""Bodies of blobs that do not come as they should."""

from __future__ import annotations

from tests.blob_rig import KIB, MIB
from tests.fake_hub import spoilt
from tests.faults.pulling import fault
from tests.faults.stand import Asked, Stand

COLD = Asked.COLD_BLOB
HALF = 512 * KIB
_LOGIN_PAGE = b"<html>Please log in to the network</html>"


def _chunked_and_short(stand: Stand) -> None:
    stand.hub.no_content_length("cdn")
    stand.hub.truncate("cdn", HALF)


def _breaks_and_starts_again(stand: Stand) -> None:
    stand.hub.cut("cdn", HALF)
    stand.hub.no_range("cdn")


TRANSFERS = (
    fault("the connection breaks before the first byte, once", COLD, lambda s: s.hub.cut("cdn", 0)),
    fault("the connection breaks after the first byte, once", COLD, lambda s: s.hub.cut("cdn", 1)),
    fault("the connection breaks half-way, once", COLD, lambda s: s.hub.cut("cdn", HALF)),
    fault("the connection breaks before the last byte, once", COLD, lambda s: s.hub.cut("cdn", MIB - 1)),
    fault("every connection breaks after 100 KiB", COLD, lambda s: s.hub.cut("cdn", 100 * KIB, times=None)),
    fault("every connection breaks after the first byte", COLD, lambda s: s.hub.cut("cdn", 1, times=None)),
    fault("the transfer stalls half-way, once", COLD, lambda s: s.hub.hold("cdn", HALF, times=1)),
    fault("every transfer stalls before its first byte", COLD, lambda s: s.hub.hold("cdn", 0)),
    fault("the CDN accepts and says nothing", COLD, lambda s: s.hub.hang("cdn")),
    fault(
        "the transfer drips: 100 bytes, ten times a second, once",
        COLD,
        lambda s: s.hub.change("cdn", spoilt.drip(100, 0.1), times=1, content_only=True),
        within=20.0,
    ),
    fault("the body ends cleanly half-way, once", COLD, lambda s: s.hub.truncate("cdn", HALF, times=1)),
    fault("Content-Length says half of it, always", COLD, lambda s: s.hub.truncate("cdn", HALF, honest_length=True)),
    fault(
        "Content-Length says half, and all of it comes, once",
        COLD,
        lambda s: s.hub.change("cdn", spoilt.said_length(HALF), times=1, content_only=True),
    ),
    fault(
        "Content-Length says 1 EB, once",
        COLD,
        lambda s: s.hub.change("cdn", spoilt.said_length(10**18), times=1, content_only=True),
    ),
    fault(
        "Content-Length is no number, once",
        COLD,
        lambda s: s.hub.change("cdn", spoilt.said_length("many"), times=1, content_only=True),
    ),
    fault(
        "more bytes follow the body, once",
        COLD,
        lambda s: s.hub.change("cdn", spoilt.trailing(b"HTTP/1.1 200 OK\r\n\r\n"), times=1, content_only=True),
    ),
    fault("a byte of the first half is wrong, always", COLD, lambda s: s.hub.corrupt("cdn", 1000)),
    fault("the last byte is wrong, always", COLD, lambda s: s.hub.corrupt("cdn", MIB - 1)),
    fault("a byte is wrong, once", COLD, lambda s: s.hub.corrupt("cdn", 1000, times=1)),
    fault("a login page with status 200, always", COLD, lambda s: s.hub.garbage("cdn", _LOGIN_PAGE)),
    fault("twice as many bytes as it has, always", COLD, lambda s: s.hub.garbage("cdn", bytes(2 * MIB))),
    fault("chunked, without a length, always", COLD, lambda s: s.hub.no_content_length("cdn")),
    fault("chunked, and ends cleanly half-way, always", COLD, _chunked_and_short),
    fault("gzip that nobody asked for, once", COLD, lambda s: s.hub.gzip_encode("cdn", times=1)),
    fault("gzip that nobody asked for, always", COLD, lambda s: s.hub.gzip_encode("cdn")),
    fault("breaks half-way, and then ignores Range", COLD, _breaks_and_starts_again),
)
