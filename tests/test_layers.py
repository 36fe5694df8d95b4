"""Imports go down the floors of the house only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS: tuple[tuple[str, ...], ...] = (
    ("certificates", "lru", "units"),
    ("oci",),
    ("policy",),
    ("clock", "collapse", "logs", "systemd"),
    ("config", "metrics"),
    ("store", "upstream"),
    ("quota", "webhook"),
    ("housekeeping", "pull"),
    ("setup",),
    ("server",),
    ("workers",),
    ("app", "doctor"),
    ("cli",),
    ("__main__",),
)
"""From the ground up. Rooms on one floor do not know each other."""

NO_IO_NO_CLOCK = {"aiofiles", "aiohttp", "asyncio", "io", "os", "pathlib", "random", "socket", "sqlite3", "time"}
"""What the nouns and the decisions do without."""

FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "proxy").rglob("*.py"))


def floor(room: str) -> int:
    """Its number; None of FLOORS is a mistake of whoever added the room."""
    found = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    assert found, f"proxy/{room} stands on no floor: give it one in {Path(__file__).name}"
    return found[0]


def room_of(module: str) -> str | None:
    """`store` for `proxy.store.blobs`; None for the package itself, which holds only the version, and for others'."""
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return room if package == "proxy" and room else None


def module_of(path: Path) -> str:
    """`proxy.store.blobs` for `proxy/store/blobs.py`."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and module of every import, also of those that are made late or for types only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def wrong_imports(source: str, module: str, package: str) -> list[str]:
    """What this module must not import, with the line."""
    own = room_of(module)
    if own is None:
        return [f"line {line}: {name}" for line, name in imports(source, package) if room_of(name) is not None]
    return [
        f"line {line}: {name}"
        for line, name in imports(source, package)
        if (room := _existing_room(name)) is not None and room != own and floor(room) >= floor(own)
    ]


def _existing_room(name: str) -> str | None:
    """The room of an imported name; `from proxy import __version__` names none."""
    room = room_of(name)
    return None if room is not None and room.startswith("__version") else room


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_down_only(path: Path) -> None:
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    wrong = wrong_imports((ROOT / path).read_text(), module, package)
    assert not wrong, f"{path} imports from its own floor or above: {'; '.join(wrong)}"


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[1] in ("oci", "policy")], ids=str)
def test_nouns_and_decisions_do_no_io_and_have_no_clock(path: Path) -> None:
    imported = {name.partition(".")[0] for _, name in imports((ROOT / path).read_text(), "proxy")}
    assert not imported & NO_IO_NO_CLOCK, f"{path} imports {imported & NO_IO_NO_CLOCK}"


@pytest.mark.parametrize(
    ("source", "module", "found"),
    [
        ("import proxy.app", "proxy.store.blobs", True),
        ("from proxy.upstream.client import Upstream", "proxy.store.fills.fill", True),
        ("from proxy import pull", "proxy.store.fills.fill", True),
        ("from ..upstream import client", "proxy.store.blobs", True),
        ("if TYPE_CHECKING:\n    from proxy.pull import Pull", "proxy.upstream.client", True),
        ("def late():\n    import proxy.cli", "proxy.app", True),
        ("from proxy.metrics import Metrics", "proxy.config", True),
        ("from proxy import __version__", "proxy.store.fills.fill", False),
        ("from proxy.store.index import Index", "proxy.store.fills.fill", False),
        ("from .index import Index", "proxy.store.fills.fill", False),
        ("from proxy.config.values import Secret", "proxy.config", False),
        ("from proxy.oci.names import Digest", "proxy.policy.access", False),
        ("import proxyless.app", "proxy.oci.names", False),
    ],
)
def test_the_check_itself_sees_what_goes_up(source: str, module: str, found: bool) -> None:
    assert bool(wrong_imports(source, module, module.rpartition(".")[0])) == found
