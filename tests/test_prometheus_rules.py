"""The rules of config/prometheus: every alert fires and goes again, and reads metrics that there are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.programs import require_program

ROOT = Path(__file__).parent.parent
RULES = ROOT / "config" / "prometheus" / "pullthrough.rules.yml"
TESTS = RULES.parent / "tests" / "pullthrough.test.yml"


@pytest.mark.parametrize("command", [["check", "rules", str(RULES)], ["test", "rules", str(TESTS)]], ids=str)
def test_promtool_agrees(command: list[str]) -> None:
    require_program("promtool", "prometheus")

    run = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60)

    assert run.returncode == 0, run.stdout + run.stderr


def test_every_alert_has_a_test() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    tested = set(re.findall(r"eval_time: \w+\n\s+alertname: (\w+)", TESTS.read_text()))

    assert alerts
    assert alerts == tested


def test_every_metric_of_the_rules_is_one_of_ours() -> None:
    wanted = set(re.findall(r"\bpullthrough_([a-z0-9_]+?)(?:_total)?\b", RULES.read_text()))
    ours = "".join(file.read_text() for file in (ROOT / "proxy" / "metrics").glob("*.py"))

    assert {name for name in wanted if not re.search(rf'"(?:pullthrough_)?{name}"', ours)} == set()
