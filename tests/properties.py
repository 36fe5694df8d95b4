"""How the property tests run: the same examples every time, so that CI is short and never red by chance.

PROPERTY_EXAMPLES=20 in the environment asks for twenty times as many, by chance: for whoever looks for more.
`pytest --hypothesis-show-statistics tests/test_properties_*.py` tells how many ran.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("PROPERTY_EXAMPLES", "1"))


def examples(count: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Try a property on so many examples."""
    return settings(
        max_examples=count * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
