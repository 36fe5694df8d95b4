"""Signatures as cosign makes them: a payload, an ECDSA signature beside it, and a tag that says what is signed."""

import base64
import json
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from .images import Image, Publisher

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"


@dataclass(frozen=True, slots=True)
class CosignKey:
    """A key pair of one run."""

    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def has_signed(self, payload: bytes, signature: str) -> bool:
        """Verify a signature, which is in base64."""
        try:
            self.private.public_key().verify(base64.b64decode(signature), payload, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

    def sign(self, publisher: Publisher, image: Image, digest: str) -> Image:
        """Attach a signature to a manifest of this image's repository; return the signature's own manifest."""
        payload = json.dumps(
            {
                "critical": {
                    "identity": {"docker-reference": f"docker.io/{image.repository}"},
                    "image": {"docker-manifest-digest": digest},
                    "type": "cosign container image signature",
                },
                "optional": None,
            }
        ).encode()
        signature = base64.b64encode(self.private.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()
        return publisher.artifact(
            image.repository,
            "application/vnd.dev.cosign.artifact.sig.v1+json",
            PAYLOAD_TYPE,
            payload,
            tag=f"{digest.replace(':', '-')}.sig",
            annotations={SIGNATURE: signature},
        )
