"""What the figures were measured on: the machine and the versions, without names or paths."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.processes import program

MODEL = re.compile(r"^model name\s*: (.+)$", re.MULTILINE)
VERSION = re.compile(r"\d+\.\d+[\w.+-]*")


def machine(programs: Sequence[str] = ("nginx", "docker-registry", "wrk")) -> str:
    """Return one line, with the versions of these programs."""
    cores = os.cpu_count()
    parts = [
        f"{cores} cores ({_model()}), Linux {platform.release().partition('-')[0]}",
        f"Python {platform.python_version()}, aiohttp {version('aiohttp')}",
        *(f"{name} {_version(name)}" for name in programs),
        f"{datetime.now(UTC):%Y-%m-%d}",
    ]
    return ", ".join(parts) + "."


def _model() -> str:
    found = MODEL.search(Path("/proc/cpuinfo").read_text())
    return " ".join(found[1].split()) if found else platform.machine()


def _version(name: str) -> str:
    argument = "--version" if name == "docker-registry" else "-v"
    done = subprocess.run([program(name), argument], capture_output=True, text=True, check=False)
    found = VERSION.search(done.stdout + done.stderr)
    return found[0] if found else "of unknown version"
