"""The page of results, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.machine import machine
from economy.findings import Findings
from economy.pace import HOUR, MINUTE, clock_text
from economy.rivals import OURS
from economy.table import economy_table, half_table, jobs_that_differ
from economy.workload import WINDOW, Day

WHAT: Final = """\
{hours:g} hours of CI: {jobs} jobs of {clients} clients, most of them in {bursts} bursts, pull {images} images \
({manifests} manifests), most of them for two platforms, with layers that they share; {moves} times a tag moves; one \
job in ten pulls by digest; from {begin} to {end} upstream refuses every connection. Upstream is a registry that \
counts, limits, redirects and wants tokens as Docker Hub does, and lets through {limit} pulls in {window:g} hours. \
The day takes {seconds:.0f} s: a minute of it is {minute:.2g} s, and what a configuration says in minutes is divided \
likewise (nginx counts whole seconds, of {whole:.0f} minutes each; our cache is given the clock of the day). Pulls \
themselves are not faster: one that takes half a second takes {half:.2g} minutes of the day. Layers are 20 to 160 \
KiB. Rivals run side by side, each with an upstream of its own."""

CLIENTS: Final = """\
Half of the clients pull as dockerd does with its own image store, half as containerd, each job on a fresh machine: \
HEAD of the tag, then the index and the manifest of their platform by digest, then config and layers; every byte is \
compared with its digest. Where the mirror fails they go to upstream themselves, as both do, with the address that \
they share with it; there is one address and one limit for all. In the outage, and just before it, jobs want only \
what was pulled before: nothing can answer the rest. A tag does not move where it would be a matter of moments which \
version a job gets."""

RIVALS: Final = """\
nginx has the caching rules of rpardini/docker-registry-proxy with ENABLE_MANIFEST_CACHE and its defaults (tags such \
as `3.12` for 60 days, `stable` for ten minutes, `latest` for an hour, then a conditional GET), as a mirror that can \
be pointed to. docker-registry is Debian's, as a proxy. pullthrough has its defaults. All of them pull anonymously."""

COLUMNS: Final = """\
*Counted pulls* are what upstream counted: GETs of manifests that it answered, of the cache and of clients that went \
around it. Its window rolls: what was pulled comes back six hours later. *Most in 6 h* cannot pass the limit: who \
wants more gets 429. The *physical limit* is the number of different manifests that the jobs ask for. *Outdated \
answers* are tags that were answered with what they did not point to any more: the price of not asking each time. \
429s are as clients got them, from whomever; containerd repeats each four times."""

HALF: Final = """\
The same day with a limit of half of what its busiest six hours need. With the governor `acme/deploy-*` is named \
important and `nightly/*` unimportant, everything else is as it comes; without it, `governor = false`. *No way \
around*: the images are named by the cache (`cache:5000/library/...`) or the firewall lets nobody else out, so that \
clients cannot spend beside it what it keeps for others. *Saved* are changed tags that were answered with what was \
held, *stretched* tags that were answered without asking for longer than configured. Nobody waits here: the cache \
lets a pull wait for ten seconds, and only if quota is about to come back, and a minute of this day takes \
{minute:.2g} s."""


def page(day: Day, found: Sequence[Findings], half: Sequence[Findings], factor: float, seed: int) -> str:
    """Everything as Markdown."""
    governed, ungoverned, governed_only, ungoverned_only = half
    parts = (
        "# Economy",
        f"{machine(('nginx', 'docker-registry'))} Form: {day.form.name}, seed {seed}.",
        _what(day, found[0].limit, factor),
        CLIENTS,
        RIVALS,
        economy_table(day, found),
        COLUMNS,
        "![Counted pulls, failed jobs and bytes with each of them](economy.png)",
        f"## Half the quota: {half[0].limit} pulls in six hours",
        HALF.format(minute=MINUTE / factor),
        half_table(half),
        "![The day minute by minute, with the governor and without](half-quota.png)",
        "Jobs where clients can go around the cache (**important**, *unimportant*):",
        jobs_that_differ(governed, ungoverned),
        "Jobs where they cannot:",
        jobs_that_differ(governed_only, ungoverned_only),
    )
    return "\n\n".join(parts) + "\n"


def complaints(found: Sequence[Findings]) -> list[str]:
    """What must not be, of all of them; and of us, on a day with enough quota."""
    wrong = [f"{each.rival}: wrong bytes: {path}" for each in found for path in each.wrong]
    (ours,) = (each for each in found if each.rival == OURS.name)
    failed = [f"{ours.rival}: {clock_text(each.job.at)}: {each.failed}" for each in ours.failed]
    if ours.counted != len(ours.asked):
        failed.append(f"{ours.rival}: {ours.counted} pulls were counted for {len(ours.asked)} different manifests")
    return wrong + failed


def _what(day: Day, limit: int, factor: float) -> str:
    begin, end = day.outage
    return WHAT.format(
        hours=day.form.hours,
        jobs=len(day.jobs),
        clients=day.form.clients,
        bursts=day.form.bursts,
        images=len({image for job in day.jobs for image in job.images}),
        manifests=sum(len(list(day.needs(job))) for job in day.jobs),
        moves=len(day.moves),
        begin=clock_text(begin),
        end=clock_text(end),
        limit=limit,
        window=WINDOW / HOUR,
        seconds=day.seconds / factor,
        minute=MINUTE / factor,
        whole=factor / MINUTE,
        half=factor / 2 / MINUTE,
    )
