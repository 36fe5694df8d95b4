"""The certificate of every server that speaks TLS in the benchmark: made on the spot, trusted by nobody."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.processes import program


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of a certificate and its key, in PEM."""

    certificate: Path
    key: Path


def make_pair(directory: Path) -> Pair:
    """A pair of the kind that Let's Encrypt gives by default."""
    pair = Pair(directory / "tls.crt", directory / "tls.key")
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    how = ["req", "-x509", *kind, "-days", "2", "-subj", "/CN=localhost"]
    command = [program("openssl"), *how, "-out", str(pair.certificate), "-keyout", str(pair.key)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"openssl ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return pair


def trusting_anybody() -> ssl.SSLContext:
    """For clients that want to know how fast a server is, and not who."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
