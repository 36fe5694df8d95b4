"""A set-up as lines for people at a terminal."""

from __future__ import annotations

from textwrap import indent
from typing import Final

from proxy.setup.clients import CLIENTS
from proxy.setup.guide import Part, Setup

_WIDTH: Final = max(len(name) for name in CLIENTS)


def as_text(setup: Setup) -> str:
    """All of it, ending with a newline."""
    lines = [f"{setup.client} through the cache at {setup.url}", ""]
    for part in setup.parts:
        lines += [_title(part), "", indent(part.content, " " * 4)]
    if setup.restart is not None:
        lines.append(f"Then:   {setup.restart}")
    lines.append(f"Check:  {setup.check}")
    lines += [f"Note:   {note}" for note in setup.notes]
    return "\n".join([*lines, ""])


def clients_text() -> str:
    """The clients there are, one line each."""
    return "".join(f"{name:<{_WIDTH}}  {client.summary}\n" for name, client in CLIENTS.items())


def _title(part: Part) -> str:
    title = part.path or part.about
    return f"{title} ({part.about})" if part.path and part.about else title
