"""Refusals of upstream, remembered briefly (PROTOCOL 8.11)."""

from __future__ import annotations

import pytest

from proxy.oci.errors import (
    BlobUnknown,
    Denied,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    TooManyRequests,
    Unavailable,
)
from proxy.policy.negatives import NEGATIVE_SECONDS, Negatives

NOW = 1000.0


@pytest.mark.parametrize("kind", [BlobUnknown, Denied, ManifestUnknown, NameUnknown])
def test_what_upstream_refused_is_remembered_for_its_key_and_its_time(kind: type[RegistryError]) -> None:
    negatives = Negatives()
    negatives.remember("key", kind("it is not there"), NOW)

    with pytest.raises(kind, match="it is not there"):
        negatives.check("key", NOW + NEGATIVE_SECONDS - 0.001)
    negatives.check("other key", NOW)
    negatives.check("key", NOW + NEGATIVE_SECONDS)


@pytest.mark.parametrize("kind", [TooManyRequests, Unavailable])
def test_that_upstream_could_not_be_asked_is_not_remembered(kind: type[RegistryError]) -> None:
    negatives = Negatives()
    negatives.remember("key", kind("no answer"), NOW)

    negatives.check("key", NOW)


def test_what_is_remembered_keeps_no_frames_alive() -> None:
    negatives = Negatives()
    with pytest.raises(Denied) as first:
        raise Denied("no")
    negatives.remember("key", first.value, NOW)

    with pytest.raises(Denied) as second:
        negatives.check("key", NOW)
    with pytest.raises(Denied) as third:
        negatives.check("key", NOW)

    assert len({id(each.value) for each in (first, second, third)}) == 3
    assert len(second.traceback) == len(third.traceback)


def test_what_is_forgotten_may_be_asked_again() -> None:
    negatives = Negatives()
    negatives.remember("key", Denied("no"), NOW)

    negatives.forget("key")
    negatives.forget("never known")

    negatives.check("key", NOW)


def test_the_memory_is_bounded() -> None:
    negatives = Negatives()
    for number in range(10_001):
        negatives.remember(number, Denied("no"), NOW)

    negatives.check(0, NOW)
    with pytest.raises(Denied):
        negatives.check(1, NOW)
