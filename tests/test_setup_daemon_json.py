"""Merging into a daemon.json: one key changes, and every other character stays."""

from __future__ import annotations

import json

import pytest

from proxy.setup import Refused
from proxy.setup.daemon_json import merged

CACHE = "http://cache:5000"
WHOLE = '{\n  "registry-mirrors": ["http://cache:5000"]\n}\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", WHOLE),
        ("\n \n", WHOLE),
        ("{}", WHOLE),
        ("{\n}\n", WHOLE),
        ('{"debug": true}', '{"debug": true, "registry-mirrors": ["http://cache:5000"]}'),
        ('{ "debug":true }\n', '{ "debug":true, "registry-mirrors": ["http://cache:5000"] }\n'),
        (
            '{\n\t"log-opts": {"max-size": "10m"},\n\t"mtu": 1.450e3\n}\n',
            '{\n\t"log-opts": {"max-size": "10m"},\n\t"mtu": 1.450e3,\n\t"registry-mirrors": ["http://cache:5000"]\n}\n',
        ),
        (
            '{\r\n    "labels": ["\\u00fc=\u00fc"]\r\n}',
            '{\r\n    "labels": ["\\u00fc=\u00fc"],\r\n    "registry-mirrors": ["http://cache:5000"]\r\n}',
        ),
        (
            '{"registry-mirrors": ["https://other"], "debug": true}',
            '{"registry-mirrors": ["http://cache:5000", "https://other"], "debug": true}',
        ),
        (
            '{\n  "registry-mirrors": [\n    "https://a",\n    "b/"\n  ],\n  "mtu": 1\n}',
            '{\n  "registry-mirrors": [\n    "http://cache:5000",\n    "https://a",\n    "b/"\n  ],\n  "mtu": 1\n}',
        ),
        ('{"registry-mirrors": []}', '{"registry-mirrors": ["http://cache:5000"]}'),
        ('{"registry-mirrors": [\n]}', '{"registry-mirrors": ["http://cache:5000"]}'),
        (
            '{"registry-mirrors": ["https://a", "http://cache:5000/"]}',
            '{"registry-mirrors": ["http://cache:5000", "https://a"]}',
        ),
        (
            '{"registry-mirrors": ["http://cache:5000", "https://a", "http://cache:5000"]}',
            '{"registry-mirrors": ["http://cache:5000", "https://a"]}',
        ),
        (
            '{"nested": {"registry-mirrors": 1}, "a": "}"}',
            '{"nested": {"registry-mirrors": 1}, "a": "}", "registry-mirrors": ["http://cache:5000"]}',
        ),
    ],
)
def test_ours_comes_first_and_all_else_stays_as_it_is_written(before: str, after: str) -> None:
    assert merged(before, CACHE) == after
    assert json.loads(after)["registry-mirrors"][0] == CACHE
    assert merged(after, CACHE) == after


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        '{"registry-mirrors":["http://cache:5000/","https://a"]}',
        '{ "debug": true,"registry-mirrors" : [ "http://cache:5000" ] }',
    ],
)
def test_what_is_so_already_stays_as_it_is(text: str) -> None:
    assert merged(text, CACHE) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"debug": true,}', "not JSON: .* in line 1"),
        ('{\n  // a comment\n  "debug": true\n}', "not JSON: .* in line 2; JSON has no comments"),
        ('{"debug": true', "not JSON"),
        ("{'debug': true}", "not JSON"),
        ('{"debug": NaN}', "NaN is no number"),
        ('\ufeff{"debug": true}', "not JSON"),
        ("[]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"registry-mirrors": "https://a"}', "not a list of texts"),
        ('{"registry-mirrors": null}', "not a list of texts"),
        ('{"registry-mirrors": {"a": 1}}', "not a list of texts"),
        ('{"registry-mirrors": ["https://a", 1]}', "not a list of texts"),
        ('{"registry-mirrors": [], "registry-mirrors": []}', "twice"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "too deeply"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        merged(text, CACHE)
