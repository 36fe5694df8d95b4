"""A base image made offline: the interpreter that runs the tests, what it is linked against, and nothing else.

It stands in for `python:3.12-slim`: it has `python` with pip and venv, and `install` of coreutils.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import pip

_LEFT_OUT = ("__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "site-packages", "config-*")
_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)


def make_root(root: Path) -> None:
    """A root file system in this empty folder."""
    interpreter = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    copied = [interpreter, Path(shutil.which("install") or "install").resolve()]
    for path in copied:
        _copy(path, root)
    shutil.copytree(library, _below(root, library), ignore=shutil.ignore_patterns(*_LEFT_OUT))
    shutil.copytree(Path(pip.__file__).parent, _below(root, library) / "pip", ignore=shutil.ignore_patterns(*_LEFT_OUT))
    _copy_libraries([*copied, *library.glob("lib-dynload/*.so")], root)
    for name, target in (("usr/local/bin/python", interpreter), ("usr/local/bin/install", copied[1])):
        link = root / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    (root / "tmp").mkdir()
    for path in (root, *root.rglob("*")):  # A user that is not root must get to it, wherever it was here.
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o1777 if path.name == "tmp" else 0o755)


def _copy_libraries(linked: Iterable[Path], root: Path) -> None:
    """Everything that the dynamic linker would look for, and the linker itself."""
    shown = subprocess.run(["ldd", *map(str, linked)], capture_output=True, text=True, check=False).stdout
    for found in sorted(set(_LIBRARY.findall(shown))):
        _copy(Path(found), root)


def _copy(path: Path, root: Path) -> None:
    target = _below(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")
