"""What is written to a webhook.

`json` is what Alertmanager sends (https://prometheus.io/docs/alerting/latest/configuration/#webhook_config, version 4),
so that whatever receives that receives ours:

    version            "4"
    status             "firing" if any of the alerts is, else "resolved"
    receiver           "pullthrough"
    alerts             [{status       "firing" or "resolved"
                         labels       {alertname, severity, instance, upstream, ...}
                         annotations  {summary, description}: what is wrong, and what to do
                         startsAt     RFC 3339
                         endsAt       likewise; 0001-01-01T00:00:00Z while it is firing
                         generatorURL ""
                         fingerprint  the same for the same alert of the same instance}, ...]
    groupLabels, commonLabels, commonAnnotations, groupKey, externalURL, truncatedAlerts

`slack` is {text, blocks} (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks). The text holds
all that the blocks do, since others who take what Slack takes show the text alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from proxy.policy.alerts import Alert

MOST: Final = 10
"""Alerts in a message: each is two of Slack's blocks, of which a message has at most 50."""

Format = Literal["json", "slack"]

_NEVER: Final = "0001-01-01T00:00:00Z"
_SLACK_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@\u2060"})
"""`<!channel>` and `<@U1>` are how Slack is told to notify people, and `@channel` is for others who take the same text:
a word joiner, which nobody sees, after the @ keeps it from being one."""
_MAX_SECTION: Final = 3000
_MARKS: Final = {"critical": ":red_circle:", "warning": ":large_orange_circle:", "info": ":large_blue_circle:"}
_OVER: Final = ":white_check_mark:"


def body(style: Format, alerts: Sequence[Alert], instance: str) -> bytes:
    """A message of these alerts of this cache, at most MOST of them."""
    return json.dumps(_WRITERS[style](alerts, instance)).encode()


def alertmanager(alerts: Sequence[Alert], instance: str) -> dict[str, Any]:
    """As Alertmanager writes it."""
    written = [_alert(alert, instance) for alert in alerts]
    firing = any(alert.ended_at is None for alert in alerts)
    return {
        "version": "4",
        "groupKey": f'{{}}:{{instance="{instance}"}}',
        "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved",
        "receiver": "pullthrough",
        "groupLabels": {"instance": instance},
        "commonLabels": _common([each["labels"] for each in written]),
        "commonAnnotations": _common([each["annotations"] for each in written]),
        "externalURL": "",
        "alerts": written,
    }


def slack(alerts: Sequence[Alert], instance: str) -> dict[str, Any]:
    """As Slack takes it."""
    blocks: list[dict[str, Any]] = []
    lines = []
    for alert in alerts:
        mark = _MARKS[alert.severity] if alert.ended_at is None else _OVER
        title = _escaped(f"{_status(alert).upper()} {alert.name} ({alert.severity})")
        said = _escaped(alert.summary if alert.ended_at is not None else f"{alert.summary}\n{alert.description}")
        where = _escaped(f"{instance}: {_span(alert)}")
        lines.append(f"{mark} *{title}*\n{said}\n{where}")
        blocks.append({"type": "section", "text": _markdown(f"{mark} *{title}*\n{said}"[:_MAX_SECTION])})
        blocks.append({"type": "context", "elements": [_markdown(where)]})
    return {"text": "\n\n".join(lines), "blocks": blocks}


_WRITERS: Final[Mapping[Format, Callable[[Sequence[Alert], str], dict[str, Any]]]] = {
    "json": alertmanager,
    "slack": slack,
}


def _alert(alert: Alert, instance: str) -> dict[str, Any]:
    labels = {"alertname": alert.name, "severity": alert.severity, "instance": instance, **dict(alert.labels)}
    return {
        "status": _status(alert),
        "labels": labels,
        "annotations": {"summary": alert.summary, "description": alert.description},
        "startsAt": _time(alert.started_at),
        "endsAt": _NEVER if alert.ended_at is None else _time(alert.ended_at),
        "generatorURL": "",
        "fingerprint": hashlib.sha256(json.dumps(sorted(labels.items())).encode()).hexdigest()[:16],
    }


def _common(tables: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What all of them have."""
    return {key: value for key, value in tables[0].items() if all(each.get(key) == value for each in tables)}


def _status(alert: Alert) -> str:
    return "firing" if alert.ended_at is None else "resolved"


def _span(alert: Alert) -> str:
    since = f"since {_time(alert.started_at)}"
    return since if alert.ended_at is None else f"{since}, until {_time(alert.ended_at)}"


def _time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _escaped(text: str) -> str:
    return text.translate(_SLACK_ESCAPES)


def _markdown(text: str) -> dict[str, Any]:
    """`verbatim`: names of channels and people in it stay text."""
    return {"type": "mrkdwn", "text": text, "verbatim": True}
