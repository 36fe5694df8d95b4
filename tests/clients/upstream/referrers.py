"""The referrers API, which Debian's docker-registry does not have: answered from the manifests in its storage."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(slots=True)
class Referrers:
    """What refers to a digest, of the repositories below one docker-registry's storage."""

    storage: Path
    are_known: bool = False  # whether this registry has the API at all

    def answer(self, repository: str, subject: str, artifact_type: str | None) -> web.Response:
        """Answer as the OCI distribution specification says, "Listing Referrers"."""
        entries = sorted(self._entries(repository, subject), key=lambda entry: str(entry["digest"]))
        headers = {"Content-Type": _INDEX}
        if artifact_type is not None:
            headers["OCI-Filters-Applied"] = "artifactType"
            entries = [entry for entry in entries if entry["artifactType"] == artifact_type]
        body = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries}
        return web.Response(body=json.dumps(body).encode(), headers=headers)

    def _entries(self, repository: str, subject: str) -> Iterator[dict[str, Any]]:
        registry = self.storage / "docker/registry/v2"
        for link in (registry / "repositories" / repository / "_manifests/revisions").glob("*/*/link"):
            digest = link.read_text()
            algorithm, _, hexadecimal = digest.partition(":")
            body = (registry / "blobs" / algorithm / hexadecimal[:2] / hexadecimal / "data").read_bytes()
            manifest = json.loads(body)
            if manifest.get("subject", {}).get("digest") == subject:
                yield {
                    "mediaType": manifest["mediaType"],
                    "digest": digest,
                    "size": len(body),
                    "artifactType": manifest.get("artifactType") or manifest["config"]["mediaType"],
                    "annotations": manifest.get("annotations", {}),
                }
