"""The day: which jobs want which image when, which tags move when, and when upstream is down. All by one seed.

It is pure: nothing here knows digests, hubs or caches. An image is a name with a tag, of which there are versions: the
first is there at midnight, and each time the tag moves there is a new one.
"""

from __future__ import annotations

import bisect
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from economy.pace import HOUR, MINUTE

AMD64: Final = "linux/amd64"
ARM64: Final = "linux/arm64"
Kind = Literal["dockerd", "containerd"]

SETTLED: Final = 20 * MINUTE
"""A pull that begins so shortly before an outage may still run in it; a version this young may not be cached yet."""


@dataclass(frozen=True, slots=True)
class ImageName:
    """A tag in a repository. `platforms`: one is an image without an index."""

    repository: str
    tag: str
    platforms: tuple[str, ...]
    base: int
    """Which of the bases its first layers come from."""

    @property
    def has_index(self) -> bool:
        return len(self.platforms) > 1


@dataclass(frozen=True, slots=True)
class Move:
    """A tag gets a new version, the so-manieth."""

    at: float
    image: ImageName
    version: int


@dataclass(frozen=True, slots=True)
class Job:
    """One job of CI: a fresh runner that pulls images. `pinned`: by the digest that its tag had at midnight."""

    number: int
    at: float
    client: int
    images: tuple[ImageName, ...]
    pinned: bool


@dataclass(frozen=True, slots=True)
class Form:
    """How large a day is."""

    name: str
    hours: float
    images: int
    jobs: int
    clients: int
    bursts: int
    moves: int
    outage: tuple[float, float]
    """From when to when, in hours."""
    limit: int
    """So many pulls in a window."""


FULL: Final = Form("full", 24.0, 40, 300, 20, 14, 60, (14.0, 15.0), 100)
SHORT: Final = Form("short", 2.5, 10, 40, 6, 4, 6, (1.4, 1.8), 40)
WINDOW: Final = 6 * HOUR
"""In which pulls are counted, as Docker Hub does."""

Need = tuple[ImageName, int, str]
"""A manifest that a job cannot do without: image, version, and platform or `index`."""


@dataclass(frozen=True, slots=True)
class Day:
    """Everything that happens, in order."""

    form: Form
    images: tuple[ImageName, ...]
    moves: tuple[Move, ...]
    jobs: tuple[Job, ...]
    outage: tuple[float, float]
    """Seconds of the day."""
    _times: dict[ImageName, list[float]] = field(init=False, default_factory=dict, repr=False, compare=False)

    @property
    def seconds(self) -> float:
        return self.form.hours * HOUR

    def version(self, image: ImageName, moment: float) -> int:
        """Which version the tag is at, then."""
        if not self._times:
            for move in self.moves:
                self._times.setdefault(move.image, []).append(move.at)
        return bisect.bisect_right(self._times.get(image, []), moment)

    def needs(self, job: Job) -> Iterator[Need]:
        """The manifests of a job."""
        for image in job.images:
            yield from _manifests(image, 0 if job.pinned else self.version(image, job.at), job.client)

    def first_needs(self) -> dict[Need, float]:
        """Each different manifest that is asked for, and when first."""
        first: dict[Need, float] = {}
        for job in self.jobs:
            for need in self.needs(job):
                first.setdefault(need, job.at)
        return first

    def fewest_pulls(self) -> int:
        """What the day costs at least: each different manifest that is asked for, once."""
        return len(self.first_needs())

    def needed_quota(self, window: float = WINDOW) -> int:
        """The least limit with which that can be done: the most that is new within one window."""
        moments = sorted(self.first_needs().values())
        return max(bisect.bisect_left(moments, each + window) - at for at, each in enumerate(moments))


def platform_of(image: ImageName, client: int) -> str:
    """What this client pulls of it. Every fifth client is an ARM machine."""
    wanted = ARM64 if client % 5 == 4 else AMD64
    return wanted if wanted in image.platforms else image.platforms[0]


def kind_of(client: int) -> Kind:
    """How this client pulls."""
    return "dockerd" if client % 2 else "containerd"


def plan(form: Form, seed: int) -> Day:
    """The day of this form and seed.

    Where it would be a matter of moments which version of a tag a job gets, and with that whether a manifest is ever
    wanted, the tag does not move then: so the fewest pulls are the same however long a cache answers a tag unasked.
    """
    images = tuple(_image(number) for number in range(form.images))
    outage = (form.outage[0] * HOUR, form.outage[1] * HOUR)
    moves = _moves(form, random.Random(seed), images, outage)
    while True:
        quiet = Day(form, images, moves, (), outage)
        day = Day(form, images, moves, tuple(_jobs(quiet, random.Random(seed + 1))), outage)
        doubtful = _doubtful(day)
        if not doubtful:
            return day
        moves = _numbered(each for each in moves if each not in doubtful)


def _doubtful(day: Day) -> set[Move]:
    """Moves on whose exact moment it depends which manifests are wanted on that day."""
    sure: set[Need] = set()
    unsure: dict[Need, set[Move]] = {}
    for job in day.jobs:
        for image in job.images:
            near = [each for each in day.moves if each.image == image and -SETTLED / 2 < job.at - each.at < SETTLED]
            versions = [day.version(image, job.at)]
            if near and not job.pinned:
                versions = [near[0].version - 1, *(each.version for each in near)]
            for version in versions:
                for need in _manifests(image, 0 if job.pinned else version, job.client):
                    unsure.setdefault(need, set()).update(near) if len(versions) > 1 else sure.add(need)
    return {move for need, moves in unsure.items() if need not in sure for move in moves}


def _manifests(image: ImageName, version: int, client: int) -> Iterator[Need]:
    if image.has_index:
        yield image, version, "index"
    yield image, version, platform_of(image, client)


def _numbered(moves: Iterable[Move]) -> tuple[Move, ...]:
    """With versions that count from one."""
    versions: Counter[ImageName] = Counter()
    numbered = []
    for move in moves:
        versions[move.image] += 1
        numbered.append(Move(move.at, move.image, versions[move.image]))
    return tuple(numbered)


def _image(number: int) -> ImageName:
    """Of five images, two are of the public library, two of the company, and one is built anew each night."""
    kind, serial = number % 5, number // 5
    platforms = (AMD64,) if number % 5 == 3 else (AMD64, ARM64)
    if kind in (0, 1):
        return ImageName(f"library/tool-{2 * serial + kind}", "3.12", platforms, number % 4)
    if kind in (2, 3):
        name = "deploy" if number % 10 == 3 else "app"
        return ImageName(f"acme/{name}-{number}", "stable", platforms, number % 4)
    return ImageName(f"nightly/build-{serial}", "latest", platforms, number % 4)


def _moves(
    form: Form, rng: random.Random, images: Sequence[ImageName], outage: tuple[float, float]
) -> tuple[Move, ...]:
    """Most are of the company's own images and the nightly ones; nobody can push while upstream is down."""
    restless = [each for each in images if not each.repository.startswith("library/")]
    moments = sorted(_moment(rng, form, outage) for _ in range(form.moves))
    return _numbered(Move(at, rng.choice(restless if rng.random() < 0.8 else images), 0) for at in moments)


def _moment(rng: random.Random, form: Form, outage: tuple[float, float]) -> float:
    while True:
        at = rng.uniform(0.05, 0.95) * form.hours * HOUR
        if not outage[0] - SETTLED <= at <= outage[1]:
            return at


def _jobs(day: Day, rng: random.Random) -> Iterator[Job]:
    """Four of five jobs come in bursts of a few minutes. In the outage they want what was pulled before: nothing can
    answer the rest."""
    form = day.form
    bursts = sorted(rng.uniform(0.02, 0.97) * day.seconds for _ in range(form.bursts - 1))
    bursts.append(sum(day.outage) / 2)  # one of them in the outage
    moments = sorted(
        rng.choice(bursts) + rng.uniform(0, 6 * MINUTE) if rng.random() < 0.8 else rng.uniform(0.02, 0.97) * day.seconds
        for _ in range(form.jobs)
    )
    asked: dict[ImageName, tuple[int, set[str]]] = {}
    for number, at in enumerate(moments):
        client, pinned = rng.randrange(form.clients), rng.random() < 0.1
        down = day.outage[0] - SETTLED <= at <= day.outage[1] + MINUTE
        known = [each for each in day.images if _is_known(day, asked, each, client, at)]
        images = _choice(rng, day.images, known if down else None, at / day.seconds)
        job = Job(number, at, client, images, pinned and not down)
        if not down and not job.pinned:
            _note(day, asked, job)
        if images:
            yield job


def _choice(
    rng: random.Random, images: Sequence[ImageName], known: Sequence[ImageName] | None, progress: float
) -> tuple[ImageName, ...]:
    """One image, or two: what is wanted most is wanted far more often than the rest, which comes up bit by bit."""
    so_far = max(3, round(len(images) * min(1.0, 0.6 + 2 * progress)))
    among = images[:so_far] if known is None else known
    weights = [1 / (1 + images.index(each)) ** 0.3 for each in among]
    count = 2 if rng.random() < 0.4 else 1
    return tuple(dict.fromkeys(rng.choices(among, weights, k=count))) if among else ()


def _is_known(day: Day, asked: dict[ImageName, tuple[int, set[str]]], image: ImageName, client: int, at: float) -> bool:
    """Whether a cache has to hold what this client would get of it."""
    version, platforms = asked.get(image, (None, set()))
    return version == day.version(image, at) and platform_of(image, client) in platforms


def _note(day: Day, asked: dict[ImageName, tuple[int, set[str]]], job: Job) -> None:
    """What a cache holds after this job."""
    for image in job.images:
        version = day.version(image, job.at)
        if version != day.version(image, job.at - SETTLED):
            asked.pop(image, None)  # It may hold this version or the one before.
            continue
        if image not in asked or asked[image][0] != version:
            asked[image] = version, set()
        asked[image][1].add(platform_of(image, job.client))
