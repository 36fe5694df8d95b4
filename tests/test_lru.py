"""A dictionary bounded by weight."""

from __future__ import annotations

from proxy.lru import Lru


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    lru: Lru[str, int] = Lru(2)
    lru.put("a", 1)
    lru.put("b", 2)
    lru.get("a")
    lru.put("c", 3)

    assert (lru.get("a"), lru.get("b"), lru.get("c")) == (1, None, 3)


def test_the_weights_of_all_values_stay_within_the_capacity() -> None:
    lru: Lru[str, bytes] = Lru(10, len)
    for key in "abcdef":
        lru.put(key, b"12345")

    assert (lru.weight, len(lru)) == (10, 2)
    assert lru.get("f") == b"12345"


def test_a_value_too_heavy_for_the_whole_is_not_kept_and_displaces_only_its_own_key() -> None:
    lru: Lru[str, bytes] = Lru(10, len)
    lru.put("a", b"1")
    lru.put("b", b"2")
    lru.put("b", b"x" * 11)

    assert (lru.get("a"), lru.get("b"), lru.weight) == (b"1", None, 1)


def test_a_value_put_again_is_weighed_anew() -> None:
    lru: Lru[str, bytes] = Lru(10, len)
    lru.put("a", b"12345")
    lru.put("a", b"1")
    lru.drop("missing")

    assert lru.weight == 1
    lru.drop("a")
    assert (lru.weight, len(lru)) == (0, 0)
