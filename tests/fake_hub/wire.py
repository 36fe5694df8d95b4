"""Putting an answer on the wire, with its holds, cuts and lies."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios

from aiohttp import web

from tests.eventually import eventually

from .answers import BEFORE_HEADERS, Answer, CutOff
from .ledger import Recorded

PIECE = 64 * 1024


async def send(request: web.BaseRequest, answer: Answer, record: Recorded) -> web.StreamResponse:
    """Send the answer; a client that leaves meanwhile is nobody's error."""
    response = web.StreamResponse(status=answer.status, headers=answer.all_headers())
    with contextlib.suppress(ConnectionError):
        try:
            await _pass_gates(answer, BEFORE_HEADERS)
            record.status = answer.status
            if answer.raw is not None:
                await _send_raw(request, answer.raw, answer.pace)
                return response
            if answer.chunked:
                response.enable_chunked_encoding()
            await response.prepare(request)
            if request.method != "HEAD":
                await _send_body(response, answer, record)
        except CutOff:
            await _reset(request)
    return response


async def _send_body(response: web.StreamResponse, answer: Answer, record: Recorded) -> None:
    start, stop = answer.extent()
    ends = [position for position in (answer.cut_after, answer.end_after) if position is not None]
    halts = {position for position, _ in answer.holds} | {stop - start, *ends}
    position = 0
    for halt in sorted(halt for halt in halts if 0 <= halt <= stop - start):
        while position < halt:
            size = PIECE if answer.pace is None else answer.pace[0]
            piece = answer.content.read(start + position, start + min(position + size, halt))
            await response.write(piece)
            position += len(piece)
            record.sent = position
            if answer.pace is not None:
                await asyncio.sleep(answer.pace[1])
        await _pass_gates(answer, halt)
        if halt == answer.cut_after:
            raise CutOff
        if halt == answer.end_after:
            # Content-Length may have promised more: close, so that the client is not left waiting.
            response.force_close()
            return


async def _pass_gates(answer: Answer, position: int) -> None:
    for where, gate in answer.holds:
        if where == position:
            await gate.passed()


async def _send_raw(request: web.BaseRequest, raw: bytes, pace: tuple[int, float] | None) -> None:
    size, pause = pace or (max(1, len(raw)), 0.0)
    for start in range(0, len(raw), size):
        if request.transport is None or request.transport.is_closing():
            return
        request.transport.write(raw[start : start + size])
        await asyncio.sleep(pause)
    if request.transport is not None:
        request.transport.close()


async def _reset(request: web.BaseRequest) -> None:
    """Break the connection with a TCP reset, once the other side's kernel holds all that was sent."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return
    connection: socket.socket = transport.get_extra_info("socket")
    with contextlib.suppress(AssertionError):  # a client that reads too slowly is reset all the same
        await eventually(lambda: transport.get_write_buffer_size() == 0 and _unsent(connection) == 0, timeout=30)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _unsent(connection: socket.socket) -> int:
    size = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    return int.from_bytes(size, "little")
