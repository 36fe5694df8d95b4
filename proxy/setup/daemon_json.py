"""One key of a `daemon.json` that belongs to somebody else: everything but `registry-mirrors` stays as it is written.

The text is changed, not the document that it means: what is not understood here cannot be lost.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from proxy.setup.errors import Refused

KEY: Final = "registry-mirrors"
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_FIRST_GAP: Final = re.compile(r"\[([ \t]*\r?\n[ \t\r\n]*)")
_LAST_GAP: Final = re.compile(r"([ \t\r\n]*)\]\Z")


@dataclass(frozen=True, slots=True)
class _Member:
    """A key of the object, its value, and where that is written."""

    key: str
    value: Any
    begin: int
    end: int


def fresh(mirror: str) -> str:
    """The whole file, where there was none."""
    return f'{{\n  "{KEY}": [{json.dumps(mirror)}]\n}}\n'


def merged(text: str, mirror: str) -> str:
    """The text with this mirror as the first one: the same text if it is so already. Raises Refused."""
    if not text.strip():
        return fresh(mirror)
    _refuse_what_is_no_object(text)
    members = _members(text)
    if not members:
        return fresh(mirror)
    found = [member for member in members if member.key == KEY]
    if len(found) > 1:
        raise Refused(f'it has "{KEY}" twice; remove one')
    return _with_first(text, found[0], mirror) if found else _with_key(text, members[-1], mirror)


def _refuse_what_is_no_object(text: str) -> None:
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as cause:
        raise Refused(f"it is not JSON: {cause.msg} in line {cause.lineno}; JSON has no comments") from cause
    except RecursionError as cause:
        raise Refused("it is nested too deeply") from cause
    if not isinstance(document, dict):
        raise Refused("it is not a JSON object")


def _refuse_constant(name: str) -> NoReturn:
    raise Refused(f"it is not JSON: {name} is no number")


def _members(text: str) -> list[_Member]:
    """The members of the object that this text, which is known to be one, holds."""
    decoder = json.JSONDecoder()
    members = []
    at = _skip(text, _skip(text, 0) + len("{"))
    while text[at] != "}":
        key, at = decoder.raw_decode(text, at)
        begin = _skip(text, _skip(text, at) + len(":"))
        value, end = decoder.raw_decode(text, begin)
        members.append(_Member(key, value, begin, end))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return members


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # It matches the empty text too.
    return match.end()


def _with_key(text: str, last: _Member, mirror: str) -> str:
    """After the last member, with the white space that stands before the first."""
    begin = _skip(text, 0) + len("{")
    gap = text[begin : _skip(text, begin)] or " "
    return f'{text[: last.end]},{gap}"{KEY}": [{json.dumps(mirror)}]{text[last.end :]}'


def _with_first(text: str, member: _Member, mirror: str) -> str:
    mirrors = member.value
    if not isinstance(mirrors, list) or not all(isinstance(each, str) for each in mirrors):
        raise Refused(f'its "{KEY}" is not a list of texts')
    others = [each for each in mirrors if each.removesuffix("/") != mirror]
    if len(others) == len(mirrors) - 1 and mirrors[0] not in others:
        return text
    written = text[member.begin : member.end]
    return text[: member.begin] + _list_like(written, [mirror, *others]) + text[member.end :]


def _list_like(written: str, values: list[str]) -> str:
    """A list on one line or on many, as the old one was."""
    shown = [json.dumps(each, ensure_ascii=False) for each in values]
    first, last = _FIRST_GAP.match(written), _LAST_GAP.search(written)
    if first is None or last is None or first.end() == len(written) - 1:
        return f"[{', '.join(shown)}]"
    return f"[{first[1]}{f',{first[1]}'.join(shown)}{last[1]}]"
