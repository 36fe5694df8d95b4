"""Reading the settings of clients. They are other people's files: nothing in them is taken for granted."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from proxy.doctor.judge.clients import Unreadable

_PROGRAMS: Final = ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "bin", "sbin", "opt/bin", "snap/bin")

Table = dict[str, Any]


class UnreadableError(Exception):
    """A file that is there and cannot be used."""

    def __init__(self, path: Path, reason: str, *, broken: bool) -> None:
        super().__init__(reason)
        self.found = Unreadable(str(path), reason, broken)


def installed(root: Path, *programs: str) -> bool:
    """Whether any of these programs is below this root."""
    return any((root / folder / program).exists() for folder in _PROGRAMS for program in programs)


def read_json(path: Path) -> Table | None:
    """The object in a JSON file, None if there is no file. Raises UnreadableError, with the place of a mistake."""
    return _read(path, _parse_json)


def read_toml(path: Path) -> Table | None:
    """The tables of a TOML file, None if there is no file. Raises UnreadableError, with the place of a mistake."""
    return _read(path, tomllib.loads)


def _read(path: Path, parse: Callable[[str], Any]) -> Table | None:
    try:
        document = parse(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableError(path, error.strerror or "it cannot be read", broken=False) from error
    except UnicodeDecodeError as error:
        raise UnreadableError(path, "it is not UTF-8 text", broken=True) from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UnreadableError(path, f"{error.msg} (at {where})", broken=True) from error
    except (ValueError, RecursionError) as error:
        raise UnreadableError(path, str(error), broken=True) from error
    if not isinstance(document, dict):
        raise UnreadableError(path, "it holds no object; expected { ... }", broken=True)
    return document


def _parse_json(text: str) -> Any:
    """dockerd takes an empty file for an empty object."""
    return json.loads(text) if text.strip() else {}


def table(document: Any, *path: str) -> Table:
    """The table at this path; an empty one if there is none, or something else."""
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def texts(value: Any) -> list[str]:
    """The strings of a list; of anything else none."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def tables(value: Any) -> Iterator[Table]:
    """The tables of a list; of anything else none."""
    yield from (each for each in value if isinstance(each, dict)) if isinstance(value, list) else ()
