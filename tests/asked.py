"""What a fake hub was asked for manifests, and by whom; and how many clients a cache is answering."""

from __future__ import annotations

from tests.cache_rig import CacheRig
from tests.fake_hub import ANONYMOUS, FakeHub


def heads(hub: FakeHub, reference: str | None = None, *, repository: str | None = None) -> int:
    """HEADs of manifests as the account."""
    return _heads(hub, hub.username, reference, repository)


def visibility_questions(hub: FakeHub, repository: str | None = None) -> int:
    """HEADs of manifests that were asked anonymously, refused ones too."""
    scoped = [each for each in hub.requests if each.kind == "token" and each.identity == ANONYMOUS]
    refused = sum(1 for each in scoped if repository in (None, each.repository) and _refused(hub, each.repository))
    return _heads(hub, ANONYMOUS, None, repository) + refused


def gets(hub: FakeHub, reference: str | None = None, *, repository: str | None = None) -> int:
    """GETs of manifests, whatever they were answered."""
    return hub.count("GET", "manifest", reference, repository=repository)


def gets_by_tag(hub: FakeHub) -> list[str | None]:
    """The references, other than digests, of all GETs of manifests."""
    asked = (each.reference for each in hub.requests if each.kind == "manifest" and each.method == "GET")
    return [reference for reference in asked if not (reference or "").startswith("sha256:")]


def in_flight(cache: CacheRig) -> int:
    """How many requests are being answered: what a test of concurrency waits for, and no client can see."""
    return cache.app.generation.routes._active


def _refused(hub: FakeHub, repository: str | None) -> bool:
    known = hub.repositories.get(repository or "")
    return known is None or known.private


def _heads(hub: FakeHub, identity: str, reference: str | None, repository: str | None) -> int:
    return sum(
        1
        for each in hub.requests
        if (each.kind, each.method, each.identity) == ("manifest", "HEAD", identity)
        and each.status != 401
        and reference in (None, each.reference)
        and repository in (None, each.repository)
    )
