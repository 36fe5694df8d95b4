"""Requests that are nearly right: a corpus, and ways to spoil it. The same seed gives the same inputs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final

DIGEST: Final = "sha256:" + "0123456789abcdef" * 4

PATHS: Final = (
    "/v2/",
    "/v2/library/app/manifests/latest",
    f"/v2/library/app/manifests/{DIGEST}",
    f"/v2/library/app/blobs/{DIGEST}",
    "/v2/library/app/tags/list?n=2&last=a",
    f"/v2/library/app/referrers/{DIGEST}?artifactType=a%2Fb",
    "/v2/_catalog?n=1",
    "/setup/dockerd",
    "/ghcr.io/v2/a/b/manifests/x?ns=docker.io",
    "http://cache/v2/",
    "*",
    "cache:443",
    "/v2/%2e%2e/%00/manifests/%ff",
)
METHODS: Final = ("GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "CONNECT", "TRACE", "PRI", "get", "")
FIELDS: Final = (
    "Accept: application/vnd.oci.image.index.v1+json, */*;q=0.1",
    "Range: bytes=0-99",
    "Range: bytes=-1",
    'If-None-Match: "sha256:00", *',
    f'If-Range: "{DIGEST}"',
    "Authorization: Bearer e30.e30.e30",
    "Connection: close",
    "Connection: keep-alive, upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAAQAAP__",
    "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Expect: 100-continue",
    "Content-Length: 5",
    "Content-Length: 0",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Content-Encoding: gzip",
    "Content-Encoding: br",
    "Content-Type: multipart/form-data; boundary=x",
    "Cookie: a=b; c=\x00d",
    "X-Forwarded-For: 10.0.0.1",
    "TE: trailers",
    "Trailer: X",
)
VERSIONS: Final = ("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "http/1.1", "")
BODIES: Final = (
    b"",
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"ffff\r\nshort",
    b"\x1f\x8b\x08\x00junk",
)
OTHER: Final = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"GET /\r\n",
    b"\x00" * 64,
    b"\x05\x01\x00",
    b"SSH-2.0-x\r\n",
    b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\n\r\n\r\n",
)
BYTES: Final = (
    b"\x00",
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b":",
    b"\xff",
    b"\xc3\x28",
    b"%",
    b"/",
    b",",
    b'"',
    b";",
    b"\x7f",
)
NUMBERS: Final = (
    b"-1",
    b"0",
    b"+5",
    b"4294967296",
    b"18446744073709551615",
    b"18446744073709551616",
    b"9" * 40,
    b"0x10",
)


def request(chance: random.Random, paths: Sequence[str]) -> bytes:
    """A request that could be right."""
    fields = chance.choices(FIELDS, k=chance.choice((0, 0, 1, 1, 2, 4)))
    version = chance.choice(VERSIONS) if chance.random() < 0.1 else "HTTP/1.1"
    lines = [f"{chance.choice(METHODS[:6])} {chance.choice(paths)} {version}", "Host: cache", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (chance.choice(BODIES) if chance.random() < 0.2 else b"")


def _flip(data: bytes, chance: random.Random) -> bytes:
    position = chance.randrange(len(data))
    return data[:position] + bytes([data[position] ^ (1 << chance.randrange(8))]) + data[position + 1 :]


def _insert(data: bytes, chance: random.Random) -> bytes:
    position = chance.randrange(len(data))
    return data[:position] + chance.choice(BYTES) * chance.choice((1, 1, 2, 100)) + data[position:]


def _remove(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.randrange(1, 20) :]


def _repeat_line(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\r\n")
    number = chance.randrange(len(lines))
    return b"\r\n".join(lines[:number] + lines[number : number + 1] * chance.choice((2, 3, 200)) + lines[number + 1 :])


def _long_line(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\r\n")
    lines[chance.randrange(len(lines))] += b"a" * chance.choice((1000, 8190, 16400, 40000))
    return b"\r\n".join(lines)


def _other_number(data: bytes, chance: random.Random) -> bytes:
    places = [number for number, byte in enumerate(data) if chr(byte).isdigit()]
    if not places:
        return data
    place = chance.choice(places)
    return data[:place] + chance.choice(NUMBERS) + data[place + 1 :]


def _other_space(data: bytes, chance: random.Random) -> bytes:
    return data.replace(
        chance.choice((b" ", b"\r\n", b": ")), chance.choice((b"", b"  ", b"\t", b"\n", b"\r", b" : ", b"\r\n "))
    )


def _other_method(data: bytes, chance: random.Random) -> bytes:
    return chance.choice(METHODS).encode() + data[data.index(b" ") :] if b" " in data else data


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


MUTATIONS: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    *(_flip, _insert, _remove, _repeat_line, _long_line, _other_number, _other_space, _other_method, _cut),
)


def inputs(seed: int, count: int, paths: Sequence[str]) -> Iterator[bytes]:
    """So many inputs: each what one connection sends. `paths` are those of things that are there."""
    chance = random.Random(seed)
    paths = [*PATHS, *paths, *paths]
    for _ in range(count):
        data = b"".join(request(chance, paths) for _ in range(chance.choice((1, 1, 1, 1, 2, 5))))
        for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
            data = chance.choice(MUTATIONS)(data or b"x", chance)
        if chance.random() < 0.03:
            data = chance.choice(OTHER) + data
        yield data
