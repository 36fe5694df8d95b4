"""A certificate authority of the tests' own."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
Key = ec.EllipticCurvePrivateKey

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


class Authority:
    """A CA, and the certificates it signs."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A CA of the tests")])
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = self._builder(self.name, self.key, now - 400 * DAY, now + 400 * DAY, ca=True)

    def sign(self, folder: Path, host: str, start: datetime.timedelta, end: datetime.timedelta) -> ssl.SSLContext:
        """A server's context with a certificate for this host, valid from `start` to `end`, both seen from now."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(folder, host, start, end))
        return context

    def issue(
        self,
        folder: Path,
        host: str = "localhost",
        start: datetime.timedelta = -DAY,
        end: datetime.timedelta = DAY,
        password: bytes | None = None,
    ) -> tuple[Path, Path]:
        """The files of such a certificate and of its key, which are the same ones each time."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = self._builder(subject, key, now + start, now + end, host=host)
        hiding = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        files = folder / "server.crt", folder / "server.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hiding))
        return files

    def trust(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this system trust the CA, as SSL_CERT_FILE does."""
        monkeypatch.setenv("SSL_CERT_FILE", str(self.write(folder)))

    def write(self, folder: Path) -> Path:
        """The file that makes others trust it."""
        path = folder / "ca.pem"
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def _builder(
        self,
        subject: x509.Name,
        key: Key,
        start: datetime.datetime,
        end: datetime.datetime,
        *,
        host: str | None = None,
        ca: bool = False,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if ca:
            usage = {name: name in ("key_cert_sign", "crl_sign") for name in _USAGES}
            builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
        if host is not None:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host), address]), critical=False)
        return builder.sign(self.key, hashes.SHA256())
