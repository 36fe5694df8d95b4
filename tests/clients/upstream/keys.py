"""The token server's signing key: made for one run, trusted by docker-registry through its certificate."""

import base64
import datetime
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from .settings import ISSUER, SERVICE

LIFETIME_S = 300  # as on Docker Hub


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An RSA key with its self-signed certificate; signs the bearer tokens docker-registry accepts."""

    private: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @classmethod
    def generate(cls) -> Self:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .sign(private, hashes.SHA256())
        )
        return cls(private, certificate)

    def write(self, file: Path) -> None:
        """Write key and certificate into one PEM file."""
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        file.touch(mode=0o600)
        file.write_bytes(
            self.private.private_bytes(pem, pkcs8, serialization.NoEncryption()) + self.certificate.public_bytes(pem)
        )

    @classmethod
    def read(cls, file: Path) -> Self:
        content = file.read_bytes()
        private = serialization.load_pem_private_key(content, password=None)
        assert isinstance(private, rsa.RSAPrivateKey)
        return cls(private, x509.load_pem_x509_certificate(content))

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def token(self, subject: str, access: list[dict[str, object]]) -> str:
        """Sign a bearer token that grants `access` to `subject`."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": SERVICE,
            "iat": now,
            "nbf": now - LIFETIME_S,  # Hub's tokens are valid from five minutes ago
            "exp": now + LIFETIME_S,
            "jti": f"dckr_jti_{time.monotonic_ns()}",
            "access": access,
        }
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        return jwt.encode(claims, self.private, "RS256", headers={"x5c": [base64.b64encode(der).decode()]})

    def has_signed(self, token: str) -> bool:
        """Is this a token of ours, of whatever age?"""
        try:
            jwt.PyJWS().decode(token, self.private.public_key(), ["RS256"])  # the signature, and no claim
        except jwt.InvalidTokenError:
            return False
        return True


def grant(repository: str, *actions: str) -> dict[str, object]:
    """Return one entry of a token's `access` claim."""
    return {"type": "repository", "name": repository, "actions": list(actions)}
