"""Programs of other packages that a test runs, where they are there."""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(name: str, package: str) -> None:
    """Skip the test without this program, or fail it where PULLTHROUGH_REQUIRE_CLIENTS says that all must be there."""
    if shutil.which(name) is None:
        skip_or_fail(f"{name} is missing; it comes with the Debian package {package}")


def skip_or_fail(reason: str) -> None:
    """The test cannot run here, for this reason."""
    if os.environ.get("PULLTHROUGH_REQUIRE_CLIENTS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
