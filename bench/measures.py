"""What a server costs: CPU time and memory of its process and all its children, from /proc."""

import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
STILL = 0.2
STILL_WITHIN = 60.0


def family(pid: int) -> list[int]:
    """Return the process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    members = [pid]
    for member in members:
        members.extend(children.get(member, []))
    return members


def cpu_seconds(pid: int) -> float:
    """Return the CPU time used so far, children that have ended included."""
    return sum(int(ticks) for member in family(pid) for ticks in _stat(member)[11:15]) / TICKS


def cpu_seconds_when_idle(pid: int) -> float:
    """Return the CPU time once it stands still, so that work which outlives the last response is counted."""
    deadline = time.monotonic() + STILL_WITHIN
    before, now = -1.0, cpu_seconds(pid)
    while now - before >= 1.5 / TICKS and time.monotonic() < deadline:  # one tick is what an idle server may use
        time.sleep(STILL)
        before, now = now, cpu_seconds(pid)
    return now


class Others:
    """How busy everything else on the machine was, which tells how far the figures can be trusted."""

    def __init__(self) -> None:
        self._start = self._read()

    @property
    def share(self) -> float:
        """The part of all CPU time since the start that neither idled nor went to this process and its children."""
        whole, others = (now - before for now, before in zip(self._read(), self._start, strict=True))
        return max(others, 0.0) / whole

    @staticmethod
    def _read() -> tuple[float, float]:
        user, nice, system, idle, wait, irq, softirq, steal = (
            int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
        )
        # Interrupts are nobody's: most of them carry the benchmark's own packets.
        busy = user + nice + system + steal
        return (busy + idle + wait + irq + softirq) / TICKS, busy / TICKS - cpu_seconds(os.getpid())


def resident_mib(pid: int) -> float:
    """Return the resident memory, summed over the processes; a page that they share counts once."""
    return sum(_kib(member, "smaps_rollup", "Pss:") for member in family(pid)) / 1024


def peak_mib(pid: int) -> float:
    """Return the highest resident memory so far, summed over the processes (pages they share count for each)."""
    return sum(_kib(member, "status", "VmHWM:") for member in family(pid)) / 1024


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from `state` on: [1] is the parent, [11:15] are the four CPU times."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()  # the command before it may hold anything, spaces and brackets too


def _kib(pid: int, table: str, field: str) -> int:
    """Return a figure of /proc/PID/status or /proc/PID/smaps_rollup (proc(5))."""
    try:
        lines = Path(f"/proc/{pid}/{table}").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)
