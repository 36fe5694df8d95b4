"""Which Range is honoured, which is ignored, and which cannot be satisfied (PROTOCOL 5.2, 5.4, 10)."""

from __future__ import annotations

import pytest

from proxy.oci.errors import RangeInvalid
from proxy.oci.ranges import ByteRange, parse_range

SIZE = 1000


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, 1000),
        ("bytes=10-19", 10, 20),
        ("bytes=999-", 999, 1000),
        ("bytes=999-999", 999, 1000),
        ("bytes=990-5000", 990, 1000),
        ("bytes=0-9999999999999999999", 0, 1000),
        ("bytes=-1", 999, 1000),
        ("bytes=-1000", 0, 1000),
        ("bytes=-5000", 0, 1000),
        ("Bytes=1-2", 1, 3),
        ("bytes= 1-2 ", 1, 3),
        ("bytes=007-008", 7, 9),
    ],
)
def test_a_single_range_is_honoured_and_clipped_to_the_content(header: str, start: int, stop: int) -> None:
    part = parse_range(header, SIZE)

    assert part == ByteRange(start, stop)
    assert len(part) == stop - start
    assert part.content_range(SIZE) == f"bytes {start}-{stop - 1}/1000"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=-0",
        "bytes=5-4",
        "bytes=5000-4000",
        "bytes=0-1,5-6",
        "bytes=0-1, -5",
        "bytes=0-1,",
        "bytes=a-b",
        "bytes=1.5-2",
        "bytes=+1-2",
        "bytes=--1",
        "bytes=0x1-0x2",
        "bytes=1-2\n",
        "bytes=\u0661-\u0662",
        "items=0-1",
        "0-1",
        "bytes 0-1",
        "bytes=99999999999999999999-",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_anything_else_is_ignored(header: str | None) -> None:
    assert parse_range(header, SIZE) is None


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=1000-1000", "bytes=5000-6000", "bytes=9999999999999999999-"])
def test_only_a_start_beyond_the_end_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(RangeInvalid) as caught:
        parse_range(header, SIZE)

    assert caught.value.detail == {"size": SIZE}


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-5"])
def test_empty_content_has_no_parts(header: str) -> None:
    assert parse_range(header, 0) is None
