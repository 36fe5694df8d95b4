"""The upstream registry: static files that look like `/v2/`, served by nginx, and a count of what was fetched.

It needs no token and has no quota: the benchmark compares engines, and what an engine saves upstream is read from the
access log.
"""

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import image
from bench.nginx import nginx_command
from bench.processes import free_port, running

# Two components: `library/` is added to a name of one component on Docker Hub.
REPOSITORY = "bench/image"
TAG = "latest"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MIB = 1 << 20
LAYERS = 10  # of the manifest, which makes it about as long as the usual one: 1.8 KB

HTTP = """\
    log_format fetches '$request_method $uri $status';
    access_log {directory}/fetches.log fetches;
    etag off;
    map $uri $digest {{
        ~/(?<named>sha256:[0-9a-f]+)$ $named;
        {tags}
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {directory}/files;
        add_header Docker-Distribution-Api-Version registry/2.0;
        add_header Docker-Content-Digest $digest;
        add_header ETag '"$digest"';
        location = /v2/ {{ default_type application/json; return 200 "{{}}"; }}
        location ^~ /v2/{image}/manifests/ {{ default_type {image_type}; }}
        location ~ /manifests/ {{ default_type {manifest_type}; }}
        location ~ /blobs/ {{ default_type application/octet-stream; }}
    }}"""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob of the upstream registry."""

    digest: str
    size: int

    @property
    def path(self) -> str:
        """The path it is pulled by."""
        return f"/v2/{REPOSITORY}/blobs/{self.digest}"


@dataclass(frozen=True, slots=True)
class Content:
    """What the upstream registry holds."""

    manifest: str
    config: Blob
    layer: Blob
    large: Blob
    crowd: Blob
    huge: Blob | None
    image: str | None  # the digest of the image for `docker pull`

    @property
    def by_digest(self) -> str:
        """The path of the manifest by digest."""
        return f"/v2/{REPOSITORY}/manifests/{self.manifest}"

    @property
    def by_tag(self) -> str:
        """The path of the manifest by tag."""
        return f"/v2/{REPOSITORY}/manifests/{TAG}"


Place = Callable[[Content], str]
"""The path of something that can be pulled."""


def make_content(files: Path, *, large: int, crowd: int, huge: int = 0, with_image: bool = False) -> Content:
    """Write the registry's files; sizes are bytes, and without a size there is no huge blob."""
    root = files / "v2" / REPOSITORY
    (root / "blobs").mkdir(parents=True)
    (root / "manifests").mkdir()
    config = _config(root / "blobs")
    layer = _layer(root / "blobs", 4 * MIB, seed=1)
    return Content(
        manifest=_manifest(root / "manifests", config, layer),
        config=config,
        layer=layer,
        large=_layer(root / "blobs", large, seed=2),
        crowd=_layer(root / "blobs", crowd, seed=3),
        huge=_layer(root / "blobs", huge, seed=4) if huge else None,
        image=image.publish_image(files) if with_image else None,
    )


def _config(blobs: Path) -> Blob:
    history = [{"created": "2024-01-01T00:00:00Z", "created_by": f"RUN step {step} " + "x" * 80} for step in range(24)]
    body = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "history": history}).encode()
    digest = _digest(hashlib.sha256(body))
    (blobs / digest).write_bytes(body)
    return Blob(digest, len(body))


def _layer(blobs: Path, size: int, *, seed: int) -> Blob:
    """Write a blob of pseudo-random bytes, one MiB at a time, each different from the last."""
    pattern = random.Random(seed).randbytes(MIB - 8)
    hashing = hashlib.sha256()
    partial = blobs / f"partial-{seed}"
    with partial.open("wb") as file:
        for number in range(size // MIB):
            piece = number.to_bytes(8, "big") + pattern
            hashing.update(piece)
            file.write(piece)
    partial.rename(blobs / _digest(hashing))
    return Blob(_digest(hashing), size // MIB * MIB)


def _manifest(manifests: Path, config: Blob, layer: Blob) -> str:
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "size": config.size, "digest": config.digest},
            "layers": [{"mediaType": LAYER_TYPE, "size": layer.size, "digest": layer.digest}] * LAYERS,
        }
    ).encode()
    digest = _digest(hashlib.sha256(body))
    (manifests / digest).write_bytes(body)
    (manifests / TAG).write_bytes(body)
    return digest


def _digest(hashing: "hashlib._Hash") -> str:
    return f"sha256:{hashing.hexdigest()}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """The running upstream registry."""

    port: int
    content: Content
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def mark(self) -> int:
        """Remember a moment, to count fetches from."""
        return self.log.stat().st_size

    def fetches(self, path: str, *, since: int) -> int:
        """Count the GETs of a path since a moment; call it when those who fetch have gone."""
        self._wait_until_written()
        with self.log.open("rb") as log:
            log.seek(since)
            return sum(line.startswith(f"GET {path} ".encode()) for line in log)

    def _wait_until_written(self) -> None:
        """Wait until the log stands still: nginx writes the line of a response when that ends, or is given up."""
        size = -1
        while size != (size := self.mark()):
            time.sleep(0.1)


@contextmanager
def upstream(directory: Path, content: Content) -> Iterator[Upstream]:
    """Serve the content made in `directory/files` until the block ends."""
    port = free_port()
    http = HTTP.format(
        directory=directory,
        port=port,
        tags=_tags(content),
        image=image.REPOSITORY,
        image_type=image.MANIFEST_TYPE,
        manifest_type=MANIFEST_TYPE,
    )
    with running(nginx_command(directory, http), port=port, log=directory / "output.log"):
        yield Upstream(port, content, directory / "fetches.log")


def _tags(content: Content) -> str:
    """Which digest each tag has, as lines of nginx's `map`."""
    digests = {f"{REPOSITORY}/manifests/{TAG}": content.manifest}
    if content.image is not None:
        digests[f"{image.REPOSITORY}/manifests/{image.TAG}"] = content.image
    return " ".join(f"/v2/{path} {digest};" for path, digest in digests.items())
