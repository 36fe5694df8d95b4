"""The certificate that a listener shows, and its key, as OpenSSL takes them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final, NoReturn

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_KEY: Final = b"PRIVATE KEY-----"


class CertificateError(Exception):
    """The files cannot be used. The message names the file and says why, and holds nothing of what is in it."""


class _Encrypted(Exception):
    """OpenSSL wants a password."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and later for HTTP/1.1, with this chain and this key, both in PEM. Blocking. Raises CertificateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # Of TLS 1.2; it costs us much and its client nothing.
    context.set_alpn_protocols(["http/1.1"])
    _check(certificate, _CERTIFICATE, "certificate")
    _check(key, _KEY, "private key")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _Encrypted:
        raise CertificateError(f"the key in {key} is encrypted; expected one without a password") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError(f"the key in {key} is not that of the first certificate in {certificate}") from None
        reason = (error.reason or "OpenSSL does not say why").replace("_", " ").lower()
        raise CertificateError(f"{certificate} and {key} cannot be used: {reason}") from None
    except OSError as error:
        raise CertificateError(f"cannot read {certificate} or {key}: {error.strerror}") from error
    return context


def _check(path: Path, mark: bytes, what: str) -> None:
    """OpenSSL says of neither file which one it means."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CertificateError(f"cannot read {path}: {error.strerror}") from error
    if mark not in content:
        raise CertificateError(f"{path} holds no {what} in PEM")


def _no_password() -> NoReturn:
    """Otherwise OpenSSL would ask for it at the terminal."""
    raise _Encrypted
