"""A client as cheap as can be: raw sockets, so that dozens of pulls cost the machine little beside the cache's work."""

import hashlib
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from .images import Image

_BUFFER = 1024 * 1024
_ACCEPT = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass(frozen=True, slots=True)
class Response:
    """A response with its whole body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Received:
    """What came of a blob, when its first byte came, and its digest where that was computed."""

    size: int
    first_byte: float
    digest: str | None


class Connection:
    """One keep-alive connection of one client."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._ahead = b""  # received with a head, and belonging to the body behind it

    def get(self, path: str, *, method: str = "GET", **headers: str) -> Response:
        """Ask for something small."""
        status, fields = self._ask(method, path, headers)
        body, self._ahead = self._ahead, b""
        size = 0 if method == "HEAD" else int(fields.get("content-length", "0"))
        while len(body) < size:
            body += self._receive(size - len(body))
        return Response(status, fields, body)

    def blob(self, path: str, *, verify: bool = True, on_first_byte: Callable[[], None] = lambda: None) -> Received:
        """Receive a blob and throw it away: hashed on the way, or dropped by the kernel unread."""
        status, fields = self._ask("GET", path, {})
        assert status == 200, f"{path}: {status}"
        size = left = int(fields["content-length"])
        piece = self._ahead or self._receive(min(left, _BUFFER))
        self._ahead = b""
        first_byte = time.monotonic()
        on_first_byte()

        sha256 = hashlib.sha256(piece)
        left -= len(piece)
        buffer = memoryview(bytearray(_BUFFER))
        while left:
            # MSG_TRUNC: the bytes are counted, not copied.
            count = self._socket.recv_into(buffer, min(left, _BUFFER), 0 if verify else socket.MSG_TRUNC)
            if count == 0:
                raise ConnectionError(f"{path}: cut {left} bytes before its end")
            if verify:
                sha256.update(buffer[:count])
            left -= count
        return Received(size, first_byte, f"sha256:{sha256.hexdigest()}" if verify else None)

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
        lines = [f"{method} {path} HTTP/1.1", "Host: cache", f"Accept: {_ACCEPT}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._receive(_BUFFER)
        head, self._ahead = head.split(b"\r\n\r\n", 1)
        status_line, *fields = head.decode("latin-1").split("\r\n")
        pairs = (field.partition(":") for field in fields)
        return int(status_line.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    def _receive(self, size: int) -> bytes:
        piece = self._socket.recv(size)
        if not piece:
            raise ConnectionError("the connection was closed before the end of the response")
        return piece

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pull(
    port: int, image: Image, *, watched: str = "", on_first_byte: Callable[[], None] = lambda: None
) -> dict[str, Received]:
    """Pull an image of one platform as clients do: tag, manifest by digest, every blob; each verified.

    `on_first_byte` is called when the first byte of the blob with the digest `watched` has come.
    """
    with Connection(port) as connection:
        at = f"/v2/{image.repository}"
        digest = connection.get(f"{at}/manifests/{image.tag}", method="HEAD").headers["docker-content-digest"]
        manifest = connection.get(f"{at}/manifests/{digest}")
        assert f"sha256:{hashlib.sha256(manifest.body).hexdigest()}" == digest
        content = manifest.json()
        received = {}
        for blob in (entry["digest"] for entry in (content["config"], *content["layers"])):
            callback = on_first_byte if blob == watched else lambda: None
            received[blob] = connection.blob(f"{at}/blobs/{blob}", on_first_byte=callback)
    assert all(blob.digest == digest for digest, blob in received.items())
    return received
