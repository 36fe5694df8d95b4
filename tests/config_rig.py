"""What the tests of settings share."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import ConfigError, UpstreamOptions, load


def write(folder: Path, text: str) -> Path:
    path = folder / "pullthrough.toml"
    path.write_text(text)
    return path


def refusal(path: Path | None, environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    return str(caught.value)


def upstream(environ: dict[str, str], path: Path | None = None) -> UpstreamOptions:
    return load(path, environ).upstreams[0]
