"""The files that settings name."""

from __future__ import annotations

from pathlib import Path

from proxy.certificates import CertificateError, server_context
from proxy.config.options import Config
from proxy.config.sources import ConfigError, Given
from proxy.config.values import HOOK, KEY


def check_files(config: Config) -> None:
    """That every password_file, ca and url_file can be read now and holds something, and that the certificate and key
    of the listener can be used. Raises ConfigError."""
    if config.server.tls_certificate is not None and config.server.tls_key is not None:
        try:
            server_context(config.server.tls_certificate, config.server.tls_key)
        except CertificateError as cause:
            raise ConfigError(f"server.tls_certificate and server.tls_key: {cause}") from cause
    for options in config.upstreams:
        for key, path in (("password_file", options.password_file), ("ca", options.ca)):
            if path is not None:
                _check_file(f"{key} of upstream {options.name}", path)
    if config.webhook.url_file is not None:
        content = _check_file("webhook.url_file", config.webhook.url_file)
        HOOK[KEY].read(
            Given(f"what {config.webhook.url_file} (webhook.url_file) holds", content.decode(errors="replace"))
        )


def _check_file(setting: str, path: Path) -> bytes:
    """What it holds. Raises ConfigError."""
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise ConfigError(f"cannot read {setting}: {cause.strerror}: {path}") from cause
    if not content.strip():
        raise ConfigError(f"{setting} is empty: {path}")
    return content
