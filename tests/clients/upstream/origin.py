"""Debian's docker-registry: the real registry behind the front, with token authentication."""

import hashlib
import http.client
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ...ports import free_port
from ..processes import Process, accepts, wait_until
from .keys import SigningKey, grant
from .settings import ISSUER, SERVICE


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that was pushed."""

    digest: str
    size: int


class Origin:
    """A running docker-registry, and what is needed to push into it."""

    def __init__(self, directory: Path, key: SigningKey, realm: str) -> None:
        self._key = key
        self.port = free_port()
        self.storage = directory / "origin"
        certificate = directory / "token.crt"
        certificate.write_bytes(key.certificate_pem())
        configuration = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}},
            "http": {"addr": f"127.0.0.1:{self.port}", "secret": "one process needs no shared secret"},
            "auth": {
                "token": {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(certificate)}
            },
        }
        file = directory / "origin.yml"
        file.write_text(json.dumps(configuration))  # JSON is YAML
        self.process = Process(["docker-registry", "serve", str(file)], directory / "origin.log")
        wait_until(lambda: accepts(self.port), "docker-registry listens", process=self.process)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def push_blob(self, repository: str, content: bytes) -> Blob:
        """Upload a blob."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        location = self._send(repository, "POST", f"/v2/{repository}/blobs/uploads/", 202)["Location"]
        separator = "&" if urlsplit(location).query else "?"
        self._send(repository, "PUT", f"{location}{separator}digest={digest}", 201, content)
        return Blob(digest, len(content))

    def place_blob(self, repository: str, chunks: Iterable[bytes]) -> Blob:
        """Write a big blob where the registry would keep it; its own upload takes 10 s a GiB."""
        tree = self.storage / "docker/registry/v2"
        tree.mkdir(parents=True, exist_ok=True)
        sha256, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=tree, delete=False) as file:
            for chunk in chunks:
                sha256.update(chunk)
                size += file.write(chunk)
        hexadecimal = sha256.hexdigest()
        data = tree / "blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"
        data.parent.mkdir(parents=True)
        Path(file.name).rename(data)
        link = tree / "repositories" / repository / "_layers/sha256" / hexadecimal / "link"
        link.parent.mkdir(parents=True)
        link.write_text(f"sha256:{hexadecimal}")
        return Blob(f"sha256:{hexadecimal}", size)

    def push_manifest(self, repository: str, body: bytes, media_type: str, tag: str | None = None) -> Blob:
        """Upload a manifest by tag, or by digest when it has none."""
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        path = f"/v2/{repository}/manifests/{tag or digest}"
        self._send(repository, "PUT", path, 201, body, media_type)
        return Blob(digest, len(body))

    def token(self, repository: str) -> str:
        """Return a token that may do everything in a repository."""
        return self._key.token("publisher", [grant(repository, "pull", "push")])

    def _send(
        self, repository: str, method: str, location: str, expected: int, body: bytes = b"", media_type: str = ""
    ) -> http.client.HTTPMessage:
        target = urlsplit(location)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                method,
                target.path + (f"?{target.query}" if target.query else ""),
                body=body,
                headers={
                    "Authorization": f"Bearer {self.token(repository)}",
                    "Content-Type": media_type or "application/octet-stream",
                },
            )
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        assert response.status == expected, f"{method} {target.path}: {response.status} {content!r}"
        return response.headers
