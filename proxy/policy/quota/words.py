"""A forecast in plain words. Times of day come from outside: only there is it known where people are."""

from __future__ import annotations

from collections.abc import Callable

from proxy.policy.quota.forecast import Forecast

_MINUTE, _HOUR = 60.0, 3600.0


def forecast_text(forecast: Forecast, time_of_day: Callable[[float], str]) -> str:
    """One sentence without a full stop. `time_of_day` writes a moment of the forecast as people do."""
    said = _said(forecast, time_of_day)
    if forecast.state in ("falling", "steady", "exhausted") and forecast.returns_at is not None:
        said += f"; some comes back from about {time_of_day(forecast.returns_at)} on"
    elif forecast.state == "exhausted" and forecast.returns_latest is not None:
        said += f"; some comes back by {time_of_day(forecast.returns_latest)} at the latest"
    return said


def _said(forecast: Forecast, time_of_day: Callable[[float], str]) -> str:
    match forecast.state:
        case "unlimited":
            return "no limit is sent for this account"
        case "unknown":
            return "nothing was heard of a limit"
        case "exhausted":
            return "used up"
        case "too-little":
            return "too little is known of the rate"
        case "steady":
            return _steady(forecast, time_of_day)
        case "falling":
            return _falling(forecast, time_of_day)


def _steady(forecast: Forecast, time_of_day: Callable[[float], str]) -> str:
    over = f"the last {period(forecast.over_seconds or 0.0)}"
    if not forecast.per_second:
        return f"nothing was used in {over}"
    said = f"not used up at the rate of {over}"
    return said if forecast.earliest is None else f"{said}, though it could be from {time_of_day(forecast.earliest)} on"


def _falling(forecast: Forecast, time_of_day: Callable[[float], str]) -> str:
    assert forecast.exhausted_at is not None
    said = f"at the rate of the last {period(forecast.over_seconds or 0.0)}, used up at about "
    said += time_of_day(forecast.exhausted_at)
    if forecast.earliest is not None and forecast.latest is not None:
        return f"{said}, between {time_of_day(forecast.earliest)} and {time_of_day(forecast.latest)}"
    if forecast.earliest is not None:
        return f"{said}, at {time_of_day(forecast.earliest)} at the earliest, and perhaps not at all"
    return said


def period(seconds: float) -> str:
    """`30 minutes`, `2 hours`: as people say how long."""
    if seconds < 1.5 * _MINUTE:
        return "minute"
    if seconds < 2 * _HOUR:
        return f"{round(seconds / _MINUTE)} minutes"
    return f"{round(seconds / _HOUR)} hours"
