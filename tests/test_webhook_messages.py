"""What is written to a webhook: as Alertmanager writes it, and as Slack takes it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from proxy.policy.alerts import Alert
from proxy.webhook.messages import MOST, Format, body

LOW = Alert(
    "PullQuotaLow",
    "warning",
    (("upstream", "docker.io"), ("account", "alice")),
    "docker.io: 9% of the pull quota is left",
    "See `pullthrough top`.",
    1_800_000_000.5,
)
OVER = replace(LOW, name="UpstreamUnreachable", ended_at=1_800_000_100.0)


def written(style: Format, *alerts: Alert) -> Any:
    return json.loads(body(style, alerts, "cache-1"))


def test_json_is_what_alertmanager_sends() -> None:
    """The fields, and the zero time of Go, as in Alertmanager's webhook_config, version 4."""
    message = written("json", LOW)
    assert message["alerts"][0].pop("fingerprint")
    assert message == {
        "version": "4",
        "groupKey": '{}:{instance="cache-1"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "pullthrough",
        "groupLabels": {"instance": "cache-1"},
        "commonLabels": {
            "alertname": "PullQuotaLow",
            "severity": "warning",
            "instance": "cache-1",
            "upstream": "docker.io",
            "account": "alice",
        },
        "commonAnnotations": {"summary": LOW.summary, "description": LOW.description},
        "externalURL": "",
        "alerts": [
            {
                "status": "firing",
                "labels": message["commonLabels"],
                "annotations": message["commonAnnotations"],
                "startsAt": "2027-01-15T08:00:00Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "",
            }
        ],
    }


def test_json_of_several_is_firing_while_one_is() -> None:
    message = written("json", LOW, OVER)
    assert message["status"] == "firing"
    assert [each["status"] for each in message["alerts"]] == ["firing", "resolved"]
    assert message["alerts"][1]["endsAt"] == "2027-01-15T08:01:40Z"
    assert "alertname" not in message["commonLabels"]
    assert message["commonLabels"]["upstream"] == "docker.io"
    assert written("json", OVER, LOW)["status"] == "firing"
    assert written("json", OVER)["status"] == "resolved"


def test_an_alert_has_one_fingerprint_whatever_becomes_of_it() -> None:
    (first, second, other), marks = written("json", LOW, replace(LOW, summary="x", ended_at=1.0), OVER)["alerts"], []
    for each in (first, second, other):
        assert len(each["fingerprint"]) == 16
        marks.append(each["fingerprint"])
    assert marks[0] == marks[1] != marks[2]


def test_slack_gets_text_and_blocks_that_say_the_same() -> None:
    message = written("slack", LOW)
    assert message == {
        "text": ":large_orange_circle: *FIRING PullQuotaLow (warning)*\ndocker.io: 9% of the pull quota is left\n"
        "See `pullthrough top`.\ncache-1: since 2027-01-15T08:00:00Z",
        "blocks": [
            {
                "type": "section",
                "text": {
                    "type": "mrkdwn",
                    "text": message["text"].rpartition("\n")[0],
                    "verbatim": True,
                },
            },
            {
                "type": "context",
                "elements": [
                    {"type": "mrkdwn", "text": "cache-1: since 2027-01-15T08:00:00Z", "verbatim": True},
                ],
            },
        ],
    }


def test_slack_is_told_when_it_was_over_and_not_what_to_do() -> None:
    text = written("slack", OVER)["text"]
    assert text.startswith(":white_check_mark: *RESOLVED UpstreamUnreachable (warning)*\n")
    assert text.endswith("\ncache-1: since 2027-01-15T08:00:00Z, until 2027-01-15T08:01:40Z")
    assert LOW.description not in text


@pytest.mark.parametrize(
    "evil", ["<!channel>", "<@U123>", "<https://evil.example|docs>", "@channel", "@here", "&lt;!x"]
)
def test_nobody_is_notified_by_what_stands_in_an_alert(evil: str) -> None:
    alert = replace(LOW, summary=f"a {evil} b", description=evil)
    message = json.loads(body("slack", [alert], evil))
    shown = [message["text"], *(json.dumps(block, ensure_ascii=False) for block in message["blocks"])]
    assert not any(mark in text for text in shown for mark in ("<", ">", "@channel", "@here", "@U", "&lt;!x"))


def test_slack_takes_the_longest_message() -> None:
    """A section's text has 3000 characters at most, a message 50 blocks."""
    message = written("slack", *[replace(LOW, summary="<" * 4000)] * MOST)
    assert len(message["blocks"]) <= 50
    assert max(len(block["text"]["text"]) for block in message["blocks"] if block["type"] == "section") <= 3000
