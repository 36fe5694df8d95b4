"""Durations and sizes, read and written."""

from __future__ import annotations

import pytest

from proxy.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("30s", 30), ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400), ("2d", 172800), ("90", 90), ("0", 0)],
)
def test_a_duration_is_numbers_with_units_or_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "5 m", "5x", "-5m", "5m-", "1e3", "inf", "nan", "5m5", "\N{ARABIC-INDIC DIGIT FIVE}m", "0x10"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("32MiB", 32 << 20), ("50 GiB", 50 << 30), ("1.5KiB", 1536), ("10MB", 10**7), ("1kB", 1000), ("7B", 7), ("7", 7)],
)
def test_a_size_is_a_number_with_a_unit_or_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "32mib", "32M", "-1", "1.5", "kiB", "1kiB", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(300, "5m"), (5400, "1h30m"), (0, "0s"), (0.5, "0.5s"), (90061, "1d1h1m1s"), (21600, "6h")]
)
def test_a_duration_is_written_as_it_is_read(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (32 << 20, "32MiB"), (3 << 29, "1.5GiB")]
)
def test_a_size_is_written_for_people(size: int, text: str) -> None:
    assert format_size(size) == text
