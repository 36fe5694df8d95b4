"""What a registry asks for in `WWW-Authenticate` (RFC 9110 section 11.6.1; PROTOCOL 2.1).

Values may hold commas (`scope="repository:a:pull,push"`), one header may hold several challenges, and there may be
several headers, so this reads the grammar instead of splitting. What is not understood is passed over, never raised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_SEPARATORS: Final = re.compile(r"[\s,]*")
_PARAM: Final = re.compile(rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"=][^\s,"]*))', re.DOTALL)
_SCHEME: Final = re.compile(rf"({_TOKEN})(?=[\s,]|\Z)")
_TOKEN68: Final = re.compile(r"\s+[A-Za-z0-9\-._~+/]+=*\s*(?=,|\Z)")
_GARBAGE: Final = re.compile(rf'"(?:[^"\\]|\\.)*"|{_TOKEN}|[^"]', re.DOTALL)
"""A quoted string is passed over as a whole: what is in it is no challenge."""
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate. The scheme and the names of the parameters are in lower case."""

    scheme: str
    params: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """The challenges in these header values, in their order."""
    return [challenge for value in values for challenge in _challenges(value)]


def _challenges(value: str) -> Iterator[Challenge]:
    scheme: str | None = None
    params: dict[str, str] = {}
    position = 0
    while position < len(value):
        position = _end(_SEPARATORS.match(value, position), position)
        if param := _PARAM.match(value, position):
            name, quoted, plain = param.groups()
            params.setdefault(name.lower(), plain if quoted is None else _ESCAPE.sub(r"\1", quoted))
            position = param.end()
        elif found := _SCHEME.match(value, position):
            if scheme is not None:
                yield Challenge(scheme, params)
            scheme, params = found[1].lower(), {}
            position = _end(_TOKEN68.match(value, found.end()), found.end())
        else:
            position = _end(_GARBAGE.match(value, position), len(value))
    if scheme is not None:
        yield Challenge(scheme, params)


def _end(match: re.Match[str] | None, otherwise: int) -> int:
    return match.end() if match else otherwise
