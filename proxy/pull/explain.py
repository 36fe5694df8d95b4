"""What would happen now if an image were pulled, and why. Asks nobody, and changes nothing.

image, upstream, now
admitted        null: upstream would be asked first whether it is public
priority        important, ordinary or unimportant
held            {digest, media_type, bytes, checked_at} or null; what would be answered from the cache
freshness       fresh, stale, miss, or immutable for an image by digest
fresh_until     seconds since the epoch, or null
window_seconds, stretched    for how long a tag is fresh, and how many times longer than configured that is
asks_upstream   whether a free HEAD goes out
counted_pull    no, yes or if-changed
governor        what it says to that pull: pass, save, wait or refuse
level           plenty, careful, tight, reserve or exhausted
lines           all of it, in sentences
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from proxy.clock import Clock
from proxy.oci.errors import NameUnknown
from proxy.oci.manifests import Manifest
from proxy.oci.names import Digest, Reference, Repository, Tag
from proxy.policy import freshness
from proxy.policy.freshness import Freshness, StoredTag
from proxy.policy.quota.governor import Decision
from proxy.policy.quota.purpose import NOBODY, Purpose
from proxy.pull.admission import Doorkeeper
from proxy.pull.manifests import Manifests
from proxy.quota.governor import Governor
from proxy.store.index import Index
from proxy.upstream.fallback import Registry

Document = dict[str, Any]
Verdict = Literal["pass", "save", "wait", "refuse"]


@dataclass(frozen=True, slots=True)
class _Case:
    """What is known of the image."""

    registry: Registry
    repository: Repository
    reference: Reference
    stored: StoredTag | None
    held: Manifest | None
    current: bool
    """Whether what is held is what the tag was last known to point to."""
    window: float
    now: float

    @property
    def freshness(self) -> str:
        if isinstance(self.reference, Digest):
            return "immutable"
        return freshness.decide(self.stored, self.now, self.window).value

    @property
    def asks(self) -> bool:
        return self.freshness in (Freshness.STALE.value, Freshness.MISS.value)

    @property
    def counted(self) -> Literal["no", "yes", "if-changed"]:
        if self.held is None or (self.freshness == Freshness.FRESH.value and not self.current):
            return "yes"
        return "if-changed" if self.asks else "no"


class Explainer:
    """Explains by one generation of the configuration."""

    def __init__(
        self,
        upstreams: Mapping[str, Registry],
        door: Doorkeeper,
        manifests: Manifests,
        index: Index,
        governor: Governor,
        clock: Clock,
    ) -> None:
        self._upstreams = upstreams
        self._door = door
        self._manifests = manifests
        self._index = index
        self._governor = governor
        self._clock = clock

    @property
    def registries(self) -> tuple[str, ...]:
        """Those that have a name here, the default one first."""
        return tuple(self._upstreams)

    async def explain(self, repository: Repository, reference: Reference) -> Document:
        """The document. Raises NameUnknown for a registry that is none of ours."""
        registry = self._upstreams.get(repository.registry)
        if registry is None:
            raise NameUnknown(f"{repository.registry} is no upstream here; there is {', '.join(self._upstreams)}")
        case = await self._case(registry, repository, reference)
        admitted = self._door.foresee(repository)
        governor, account = self._governor, registry.account
        document: Document = {
            "image": f"{repository}{':' if isinstance(reference, Tag) else '@'}{reference}",
            "upstream": registry.name,
            "now": case.now,
            "admitted": admitted,
            "priority": governor.rules.priority(repository).value,
            "held": _held(case),
            "freshness": case.freshness,
            "fresh_until": _fresh_until(case),
            "window_seconds": case.window,
            "stretched": case.window / registry.window if registry.window else 1.0,
            "asks_upstream": case.asks,
            "counted_pull": case.counted,
            "governor": self._verdict(case),
            "level": governor.level(account).word,
        }
        return document | {"lines": _lines(document, case)}

    async def _case(self, registry: Registry, repository: Repository, reference: Reference) -> _Case:
        stored = self._index.tag(repository, reference, "") if isinstance(reference, Tag) else None
        window = self._governor.window(registry.account, repository, registry.window)
        held, current = None, False
        wanted = [reference] if isinstance(reference, Digest) else []
        if stored is not None:
            wanted = [each.digest for each in (stored.target, stored.previous) if each is not None]
        for number, digest in enumerate(wanted):
            held = await self._manifests.stored(repository, digest)
            if held is not None:
                current = number == 0
                break
        return _Case(registry, repository, reference, stored, held, current, window, self._clock.time())

    def _verdict(self, case: _Case) -> Verdict:
        purpose = Purpose(NOBODY, "digest", "cold" if case.held is None else "changed")
        account = case.registry.account
        decision = self._governor.decide(account, case.repository, purpose)
        if decision is Decision.WAIT and not self._governor.would_wait(account):
            return "refuse"
        return decision.value


def _held(case: _Case) -> Document | None:
    if case.held is None:
        return None
    return {
        "digest": str(case.held.digest),
        "media_type": case.held.media_type,
        "bytes": len(case.held.body),
        "checked_at": case.stored.checked_at if case.stored else None,
    }


def _fresh_until(case: _Case) -> float | None:
    if case.stored is None or case.freshness != Freshness.FRESH.value:
        return None
    return case.stored.checked_at + freshness.lasts(case.stored.source, case.window)


def _lines(document: Document, case: _Case) -> list[str]:
    """Sentences for people."""
    return [
        _admission(document),
        _holding(document, case),
        _asking(document, case),
        _cost(document),
        f"{document['upstream']}: the quota is {document['level']}, and this repository is {document['priority']}",
    ]


def _admission(document: Document) -> str:
    match document["admitted"]:
        case True:
            return f"{document['image']} may be pulled through this cache"
        case False:
            return f"{document['image']} is refused: it is private, or does not exist"
        case _:
            return f"{document['upstream']} would be asked first whether {document['image']} is public"


def _holding(document: Document, case: _Case) -> str:
    if document["held"] is None:
        return "it is not held"
    held = f"it is held: {document['held']['digest']}"
    if case.stored is not None:
        held += f", confirmed {_ago(case.now - case.stored.checked_at)} ago"
    return held if case.current else f"what it pointed to before is held, and not what it points to now: {held[12:]}"


def _asking(document: Document, case: _Case) -> str:
    stretched = " (longer than configured, to save quota)" if document["stretched"] > 1 else ""
    match document["freshness"]:
        case "immutable":
            return "it is asked for by digest, which never changes"
        case "fresh":
            left = _ago((document["fresh_until"] or case.now) - case.now)
            return f"it is fresh for {left} more{stretched}, and answered without asking upstream"
        case _:
            return "upstream is asked where the tag points now, which is free"


def _cost(document: Document) -> str:
    verdict = {
        "pass": "it would be made",
        "save": "what is held is answered instead, to save quota",
        "wait": "it would wait for quota",
        "refuse": "it would be refused with 429",
    }[document["governor"]]
    match document["counted_pull"]:
        case "no":
            return "no counted pull is needed"
        case "yes":
            return f"one counted pull is needed for this manifest: {verdict}"
        case _:
            return f"a counted pull is needed only if it has changed: {verdict}"


def _ago(seconds: float) -> str:
    """Whole seconds, minutes or hours."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {unit}"
    return f"{max(0, round(seconds))} s"
