"""Answers that are wrong as HTTP, or too slow: changes for `hub.change(target, ...)`, besides those of `Faults`."""

from collections.abc import Callable

from .answers import Answer

Change = Callable[[Answer], None]


def drip(size: int, seconds: float) -> Change:
    """Send so many bytes of the body at a time, with so many seconds between."""

    def change(answer: Answer) -> None:
        answer.pace = size, seconds

    return change


def slow_headers(seconds: float) -> Change:
    """Send the head of the answer a byte at a time, with so many seconds between; a body does not follow."""

    def change(answer: Answer) -> None:
        answer.raw, answer.pace = head_of(answer), (1, seconds)

    return change


def huge_header(size: int) -> Change:
    """Send one more header line, of so many bytes."""

    def change(answer: Answer) -> None:
        answer.raw = head_of(answer, f"x-huge: {'x' * size}") + body_of(answer)

    return change


def many_headers(count: int) -> Change:
    """Send so many more header lines."""

    def change(answer: Answer) -> None:
        answer.raw = head_of(answer, *(f"x-{number}: y" for number in range(count))) + body_of(answer)

    return change


def said_length(size: int | str) -> Change:
    """Claim this Content-Length, whatever the body's is."""

    def change(answer: Answer) -> None:
        answer.headers["content-length"] = str(size)
        answer.raw = head_of(answer) + body_of(answer)

    return change


def trailing(data: bytes) -> Change:
    """Send these bytes after the end of the body."""

    def change(answer: Answer) -> None:
        answer.raw = head_of(answer) + body_of(answer) + data

    return change


def head_of(answer: Answer, *lines: str) -> bytes:
    """Status line and headers as they would be sent, and these lines. A Content-Length of the answer's own stands."""
    headers = answer.all_headers()
    if "content-length" in answer.headers:
        headers["content-length"] = answer.headers["content-length"]
    named = (f"{name}: {value}" for name, value in headers.items())
    return "\r\n".join((f"HTTP/1.1 {answer.status} Spoilt", *named, *lines, "", "")).encode()


def body_of(answer: Answer) -> bytes:
    """The whole body."""
    return answer.content.read(*answer.extent())
