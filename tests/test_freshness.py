"""When a tag's stored answer may be used (RFC 9111 section 4)."""

from __future__ import annotations

import pytest

from proxy.oci.manifests import Descriptor
from proxy.oci.names import Digest
from proxy.policy.freshness import FALLBACK_SECONDS, Freshness, StoredTag, age, decide

NOW = 1_800_000_000.0
WINDOW = 300.0
A, B, C = (Descriptor(Digest.of(name), "application/x", 1) for name in (b"a", b"b", b"c"))


def checked(seconds_ago: float) -> StoredTag:
    return StoredTag(A, None, NOW - seconds_ago)


@pytest.mark.parametrize(
    ("stored", "state"),
    [
        (None, Freshness.MISS),
        (checked(0), Freshness.FRESH),
        (checked(WINDOW - 0.001), Freshness.FRESH),
        (checked(WINDOW), Freshness.STALE),
        (checked(10 * WINDOW), Freshness.STALE),
        (checked(-0.001), Freshness.STALE),
        (checked(-1e9), Freshness.STALE),
    ],
)
def test_a_tag_is_fresh_for_the_window_after_upstream_confirmed_it(stored: StoredTag | None, state: Freshness) -> None:
    assert decide(stored, NOW, WINDOW) is state


def test_a_fallbacks_word_is_fresh_for_a_minute_or_for_the_window_if_that_is_shorter() -> None:
    def of_a_fallback(seconds_ago: float) -> StoredTag:
        return StoredTag(A, None, NOW - seconds_ago, "mirror.gcr.io")

    assert decide(of_a_fallback(FALLBACK_SECONDS - 0.001), NOW, WINDOW) is Freshness.FRESH
    assert decide(of_a_fallback(FALLBACK_SECONDS), NOW, WINDOW) is Freshness.STALE
    assert decide(of_a_fallback(10), NOW, 10) is Freshness.STALE


def test_with_no_window_a_tag_is_never_fresh() -> None:
    assert decide(checked(0), NOW, 0) is Freshness.STALE


@pytest.mark.parametrize(("seconds_ago", "whole"), [(0, 0), (0.9, 0), (61.5, 61), (-5, 0)])
def test_age_is_in_whole_seconds_and_never_negative(seconds_ago: float, whole: int) -> None:
    assert age(checked(seconds_ago), NOW) == whole


def test_a_tag_that_stayed_keeps_what_it_pointed_to_before() -> None:
    stored = StoredTag(A, B, NOW - 60).moved(StoredTag(A, None, NOW), target_held=True)

    assert stored == StoredTag(A, B, NOW)


def test_a_tag_that_moved_keeps_what_it_pointed_to_if_we_hold_that() -> None:
    assert StoredTag(A, B, NOW - 60).moved(StoredTag(C, None, NOW), target_held=True) == StoredTag(C, A, NOW)
    assert StoredTag(A, B, NOW - 60).moved(StoredTag(C, None, NOW), target_held=False) == StoredTag(C, B, NOW)
