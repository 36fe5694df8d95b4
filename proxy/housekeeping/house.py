"""Everything that the admin side asks for about what is stored."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final, TypeVar

from proxy.clock import Clock
from proxy.housekeeping import inspection, listing, purging
from proxy.housekeeping.inspection import Asked, NotKnown
from proxy.housekeeping.listing import Page
from proxy.housekeeping.parts import Parts
from proxy.housekeeping.purging import Purge
from proxy.oci.images import LATEST, ImageName
from proxy.oci.names import Digest
from proxy.policy.eviction import GOES
from proxy.policy.negatives import Negatives
from proxy.store.blobs import Blobs
from proxy.store.fills import Fills
from proxy.store.index import Index
from proxy.store.room.eviction import Evictor, Turn
from proxy.store.room.leases import Leases
from proxy.store.room.removal import Removal
from proxy.store.room.usage import Usage
from proxy.store.scrub import Scrub
from proxy.units import format_size

log = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 2.0
"""How long a question waits for what is being written down, which a locked database can delay."""
PIECE_BLOBS: Final = 256
"""Blobs that are removed at a time."""
STEP_BLOBS: Final = 5000
"""Blobs that one step of a purge by age removes."""

Document = dict[str, Any]
T = TypeVar("T")


class Refused(Exception):
    """What is asked for makes no sense. The message says why."""


class NotKeeper(Exception):
    """Another process keeps this folder in order, and has to be asked."""


class House:
    """Used on the event loop. `windows` tells for each upstream, the default one first, how long its tags are fresh.

    Every method raises sqlite3.Error or OSError if what is stored cannot be looked at.
    """

    def __init__(
        self,
        index: Index,
        blobs: Blobs,
        usage: Usage,
        fills: Fills,
        leases: Leases,
        removal: Removal,
        evictor: Evictor,
        scrub: Scrub,
        turn: Turn,
        negatives: Negatives,
        windows: Callable[[], Mapping[str, float]],
        clock: Clock,
    ) -> None:
        self._index = index
        self._parts = Parts(blobs)
        self._usage = usage
        self._fills = fills
        self._leases = leases
        self._removal = removal
        self._evictor = evictor
        self._scrub = scrub
        self._turn = turn
        self._negatives = negatives
        self._windows = windows
        self._clock = clock

    def parse(self, text: str) -> Asked:
        """What people write, with the first upstream for names without a registry. Raises RegistryError."""
        windows = self._windows()
        image = ImageName.parse(text, tuple(windows))
        default = next(iter(windows))
        return Asked(image.repository, image.reference, default, windows.get(image.repository.registry, 0.0))

    async def repositories(self, after: str, limit: int, match: str) -> Document:
        """A page of the repositories that hold something, by name."""
        page = Page(after, limit, match, next(iter(self._windows())))
        document = await self._ask(lambda connection: listing.repositories(connection, page))
        return document | {"cache": {"blobs": self._index.blob_count, "bytes": self._index.blob_bytes}}

    async def vanished(self, after: str, limit: int, match: str) -> Document:
        """A page of what upstream does not give any more and we do."""
        page = Page(after, limit, match, next(iter(self._windows())))
        return await self._ask(lambda connection: listing.vanished(connection, page))

    async def show(self, asked: Asked, after: str, limit: int) -> Document:
        """A repository with a page of its tags, or one image of it. Raises NotKnown."""
        if asked.what is None:
            return await self._ask(partial(self._show_repository, asked, after, limit))
        return await self._ask(lambda connection: inspection.show_image(connection, self._parts, asked))

    async def history(self, asked: Asked, after: str, limit: int) -> Document:
        """A page of what tags were, newest first. Raises NotKnown, and Refused for a bad `after`."""
        moment = after.partition(" ")[0]
        try:
            float(moment or 0)
        except ValueError:
            raise Refused("after is what the last page gave as next") from None
        return await self._ask(lambda connection: inspection.history(connection, asked, after, limit))

    async def pins(self, after: str, limit: int) -> Document:
        """A page of the pinned repositories, by name."""
        page = Page(after, limit, "", next(iter(self._windows())))
        return await self._ask(lambda connection: listing.pinned(connection, page))

    async def pin(self, asked: Asked) -> Document:
        """Never evict what this repository holds. Raises Refused; NotKnown for a registry that is none of ours."""
        self._check_whole(asked)
        registry, known = asked.repository.registry, self._windows()
        if registry not in known:
            raise NotKnown(f"{registry} is no upstream of this cache; it has {', '.join(known)}")
        now = self._clock.time()
        await self._index.write(
            lambda connection: (
                connection.execute("INSERT OR IGNORE INTO pins VALUES (?, ?)", (asked.full, now)).rowcount
            ),
            remember=True,
        )
        held = await self._ask(lambda connection: listing.repository(connection, asked.full, asked.default))
        log.info("%s is pinned", asked.full)
        return held

    async def unpin(self, asked: Asked) -> Document:
        """Evict what this repository holds like everything else. Raises Refused, and NotKnown if it is not pinned."""
        self._check_whole(asked)
        removed = await self._index.write(
            lambda connection: connection.execute("DELETE FROM pins WHERE repository = ?", (asked.full,)).rowcount,
            remember=True,
        )
        if not removed:
            raise NotKnown(f"{asked.name} is not pinned")
        log.info("%s is not pinned any more", asked.full)
        return self._dated({"repository": asked.full, "name": asked.name, "pinned_at": None})

    async def purge_image(self, asked: Asked, *, dry_run: bool) -> Document:
        """Forget a tag (`latest` if none is named) or a digest, and what only that needs. Raises NotKnown."""
        if asked.what is None:
            asked = Asked(asked.repository, LATEST, asked.default, asked.window)
        await self._settle()
        purge = await self._index.query(lambda connection: purging.plan_image(connection, self._parts, asked))
        if not dry_run:
            orphans = await self._index.write(lambda connection: purging.forget_image(connection, asked, purge.digests))
            await self._remove(orphans)
            self._purged(str(asked), purge)
        return await self._purge_document(asked, purge, dry_run)

    async def purge_repository(self, asked: Asked, *, dry_run: bool) -> Document:
        """Forget a repository; a large one in several steps: call again until it is complete. Raises NotKnown."""
        self._check_whole(asked)
        await self._settle()
        if dry_run:
            purge = await self._index.query(lambda connection: purging.plan_repository(connection, asked))
        else:
            purge, orphans = await self._index.write(lambda connection: purging.forget_repository(connection, asked))
            await self._remove(orphans)
            self._purged(asked.name, purge)
        return await self._purge_document(asked, purge, dry_run)

    async def purge_unused(self, seconds: float, *, dry_run: bool) -> Document:
        """Remove what was not used for so long, in steps: call again until it is complete."""
        await self._settle()
        before = self._clock.time() - seconds
        if dry_run:
            purge = await self._index.query(lambda connection: purging.plan_unused(connection, before))
        else:
            purge = Purge()
            for manifest in (False, True):
                purge.complete = await self._remove_unused(purge, before, manifest)
                if not purge.complete:
                    break
            self._purged(f"what was not used for {seconds:g} s", purge)
        return self._dated(purge.document() | {"dry_run": dry_run})

    async def collect(self, *, dry_run: bool) -> Document:
        """Evict what has to go by the limits of the configuration, or tell what would, and why. Raises NotKeeper."""
        if not dry_run:
            self._check_keeper()
            before = self._index.blob_count
            freed = await self._evictor.collect()
            log.info("%s freed on demand", format_size(freed))
            return self._dated({"dry_run": False, "bytes": freed, "blobs": max(0, before - self._index.blob_count)})
        plan = await self._evictor.plan(purging.MAX_ITEMS)
        items = [
            {
                "digest": str(candidate.digest),
                "size": candidate.size,
                "used_at": candidate.used_at,
                "manifest": candidate.manifest,
                "removed": verdict in GOES,
                "reason": verdict,
            }
            for candidate, verdict in plan.verdicts
        ]
        verdicts = {
            verdict: {"blobs": plan.blobs[verdict], "bytes": plan.bytes[verdict], "removed": verdict in GOES}
            for verdict in plan.blobs
        }
        leftovers = {"files": plan.leftovers, "bytes": plan.leftover_bytes}
        return self._dated({"dry_run": True, "verdicts": verdicts, "leftovers": leftovers, "items": items})

    def scrub(self) -> Document:
        """How the scrub is."""
        return self._dated(asdict(self._scrub.status()) | {"keeper": self._turn.held})

    def begin_scrub(self, rate: int | None) -> Document:
        """Read and hash everything now, at so many bytes a second, or (None) as fast as it goes. Raises NotKeeper."""
        self._check_keeper()
        self._scrub.begin(rate)
        log.info("a scrub was asked for")
        return self.scrub()

    async def cancel_scrub(self) -> Document:
        """End the scrub that runs, if there is one. Raises NotKeeper."""
        self._check_keeper()
        await self._scrub.cancel()
        return self.scrub()

    async def _ask(self, question: Callable[[sqlite3.Connection], Document]) -> Document:
        await self._settle()
        return self._dated(await self._index.query(question))

    def _show_repository(self, asked: Asked, after: str, limit: int, connection: sqlite3.Connection) -> Document:
        return inspection.show_repository(connection, self._parts, asked, after, limit)

    async def _settle(self) -> None:
        """Have written down what is known and what was used; what a locked database delays is seen later."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._usage.flush()
                await self._index.write(lambda _: None, remember=True)

    async def _remove(self, digests: Sequence[str]) -> None:
        """Take these from disk, but nothing that a fill is about to store."""
        for start in range(0, len(digests), PIECE_BLOBS):
            piece = [Digest.parse(each) for each in digests[start : start + PIECE_BLOBS]]
            await self._removal.remove([each for each in piece if self._fills.running(each) is None])

    async def _remove_unused(self, purge: Purge, before: float, manifest: bool) -> bool:
        """Remove at most a step of them; whether that was all."""
        after = (float("-inf"), "")
        while purge.removed_blobs < STEP_BLOBS:
            rows = await self._index.query(
                partial(purging.unused, before=before, manifest=manifest, after=after, limit=PIECE_BLOBS)
            )
            if not rows:
                return True
            piece = {Digest.parse(digest): (size, int(manifest), used_at) for digest, size, used_at in rows}
            gone = await self._removal.remove([each for each in piece if not self._is_in_use(each)])
            for digest in gone:
                purge.add(str(digest), piece[digest], 0)
            after = rows[-1][2], rows[-1][0]
        return False

    def _is_in_use(self, digest: Digest) -> bool:
        return digest in self._leases or self._fills.running(digest) is not None

    def _purged(self, what: str, purge: Purge) -> None:
        """Upstream is asked anew for what it denied, too."""
        self._negatives.clear()
        log.info("purged %s: %d blobs, %s", what, purge.removed_blobs, format_size(purge.removed_bytes))

    async def _purge_document(self, asked: Asked, purge: Purge, dry_run: bool) -> Document:
        since = await self._index.query(lambda connection: listing.pinned_at(connection, asked.full))
        names = {"repository": asked.full, "name": asked.name, "pinned_at": since, "dry_run": dry_run}
        return self._dated(names | purge.document())

    def _check_whole(self, asked: Asked) -> None:
        if asked.what is not None:
            raise Refused(f"a whole repository is meant here: {asked.name}, without {asked.what}")

    def _check_keeper(self) -> None:
        if not self._turn.held:
            raise NotKeeper("another process that shares this cache folder keeps it in order: ask that one")

    def _dated(self, document: Document) -> Document:
        return document | {"now": self._clock.time()}
