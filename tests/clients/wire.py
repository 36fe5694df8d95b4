"""One client's connection on which every header is the test's own, several of one name too."""

import hashlib
import http.client
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with its whole body."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def digest(self) -> str:
        """The digest of the bytes, whatever the headers say."""
        return f"sha256:{hashlib.sha256(self.body).hexdigest()}"


class Wire:
    """A keep-alive connection to a loopback port."""

    def __init__(self, port: int, *always: tuple[str, str]) -> None:
        """`always` are headers of every request, such as the client's User-Agent."""
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._always = always

    def ask(self, method: str, path: str, headers: Headers = ()) -> Answer:
        """Send a request and receive the whole response."""
        response = self.begin(method, path, headers)
        return Answer(response.status, response.headers, response.read())

    def begin(self, method: str, path: str, headers: Headers = ()) -> http.client.HTTPResponse:
        """Send a request and receive the head of the response."""
        self._connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (*self._always, *headers):
            self._connection.putheader(name, value)
        self._connection.endheaders()
        return self._connection.getresponse()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
