"""The first check: without a configuration there is nothing else to look at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from proxy.config import Config, ConfigError, check_files
from proxy.doctor.findings import Finding, Result, failed, ok
from proxy.doctor.threads import in_thread

_NAME: Final = "configuration"
_SECONDS: Final = 10.0


async def check_configuration(load: Callable[[], Config], source: str | None) -> tuple[Config | None, Result]:
    """The configuration, None if it cannot be used, and what is to be said of it. `source` is its file, if any."""

    def read() -> Config:
        config = load()
        check_files(config)
        return config

    config = None
    try:
        async with asyncio.timeout(_SECONDS):
            config = await in_thread(read)
        finding = _good(config, source)
    except ConfigError as error:
        finding = failed(str(error), f"{_correct(source)}; `pullthrough check-config` prints what it understands.")
    except TimeoutError:
        finding = failed("the configuration or a password_file cannot be read: its disk hangs", f"{_correct(source)}.")
    return config, Result(_NAME, finding)


def _good(config: Config, source: str | None) -> Finding:
    upstreams = ", ".join(
        f"{each.name} as {each.username}" if each.username else f"{each.name} anonymously" for each in config.upstreams
    )
    return ok(f"{source or 'no file, only the environment and defaults'}; upstreams: {upstreams}")


def _correct(source: str | None) -> str:
    return f"Correct {source}, or the environment" if source else "Correct the environment of this program"
