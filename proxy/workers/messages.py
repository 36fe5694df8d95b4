"""What the host and a server say to each other: one datagram each, with the number of the request that it is about.

    server to host   ASK      the head of a request, who asks, and how much of the body is sent already
                     NEXT     what came of the body was sent: what comes next?
                     DONE     that is all: how many bytes were sent, and whether the client left before the end
                     COUNTS   what the server answered by itself; the answer to FLUSH, too
    host to server   HELLO    the host listens to this server
                     ANSWER   the head of the answer, with a small body, or how much more will come
                     FILE     an open file, where in it the body begins, and where what can be sent by now ends
                     VISIBLE  it can be sent up to here
                     PIECE    bytes of the body that are in no file
                     BROKEN   there will be no more: end the connection
                     FLUSH    say what was counted until now

The first FILE or PIECE comes unasked, each that follows when the one before was sent.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Self

MAX_PIECE_BYTES: Final = 64 * 1024
"""Of a body in one message. A datagram of that size, with a head, fits into the buffer of every socket."""
MAX_MESSAGE_BYTES: Final = 192 * 1024

_HEADER: Final = struct.Struct("!BQ")
_OFFSET: Final = struct.Struct("!Q")
_ASK: Final = struct.Struct("!?QB")
_ANSWER: Final = struct.Struct("!QIH")
_FILE: Final = struct.Struct("!QQ")
_DONE: Final = struct.Struct("!Q?")


class Kind(IntEnum):
    """What a message is."""

    ASK = 1
    NEXT = 2
    DONE = 3
    COUNTS = 4
    HELLO = 5
    ANSWER = 6
    FILE = 7
    VISIBLE = 8
    PIECE = 9
    BROKEN = 10
    FLUSH = 11


def written(kind: Kind, number: int, content: bytes = b"") -> bytes:
    """A message about the request of this number."""
    return _HEADER.pack(kind, number) + content


def read(message: bytes) -> tuple[Kind, int, bytes]:
    """What `written` was given. Raises ValueError for what is none."""
    try:
        kind, number = _HEADER.unpack_from(message)
    except struct.error as error:
        raise ValueError("too short for a message") from error
    return Kind(kind), number, message[_HEADER.size :]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as it came from `peer`, `secure` if by TLS. `sent` bytes of the body are with the client already."""

    head: bytes
    peer: str
    secure: bool
    sent: int = 0

    def written(self) -> bytes:
        peer = self.peer.encode()
        return _ASK.pack(self.secure, self.sent, len(peer)) + peer + self.head

    @classmethod
    def read(cls, content: bytes) -> Self:
        secure, sent, length = _ASK.unpack_from(content)
        start = _ASK.size + length
        return cls(content[start:], content[_ASK.size : start].decode(), secure, sent)


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer and its body, or how many bytes of that will follow.

    `kept` says how the whole may be given again, if it may.
    """

    head: bytes
    body: bytes = b""
    more: int = 0
    kept: Any = None

    def written(self) -> bytes:
        kept = b"" if self.kept is None else json.dumps(self.kept).encode()
        return _ANSWER.pack(self.more, len(self.head), len(kept)) + self.head + kept + self.body

    @classmethod
    def read(cls, content: bytes) -> Self:
        more, head, kept = _ANSWER.unpack_from(content)
        head_end = _ANSWER.size + head
        kept_end = head_end + kept
        record = json.loads(content[head_end:kept_end]) if kept else None
        return cls(content[_ANSWER.size : head_end], content[kept_end:], more, record)


@dataclass(frozen=True, slots=True)
class File:
    """The body begins at `start` of the open file that comes with this, and can be sent up to `visible` by now."""

    start: int
    visible: int

    def written(self) -> bytes:
        return _FILE.pack(self.start, self.visible)

    @classmethod
    def read(cls, content: bytes) -> Self:
        return cls(*_FILE.unpack(content))


@dataclass(frozen=True, slots=True)
class Done:
    """So many bytes of the body were sent; `left` if the client did not wait for the rest."""

    sent: int
    left: bool

    def written(self) -> bytes:
        return _DONE.pack(self.sent, self.left)

    @classmethod
    def read(cls, content: bytes) -> Self:
        return cls(*_DONE.unpack(content))


def written_offset(offset: int) -> bytes:
    """A place in the body."""
    return _OFFSET.pack(offset)


def read_offset(content: bytes) -> int:
    """The place."""
    offset: int = _OFFSET.unpack(content)[0]
    return offset
