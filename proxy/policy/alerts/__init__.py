"""What an operator is told of without asking: the alerts of config/prometheus, for those without Prometheus.

facts.py   what is looked at, and a single alert
trends.py  what counters did lately
rules.py   when something is wrong, how it is called and what to do: as in the rules of Prometheus
board.py   which alerts stand, and which of them somebody has still to be told of

All of it is pure: the clock is an argument.
"""

from __future__ import annotations

from proxy.policy.alerts.board import Board
from proxy.policy.alerts.facts import Alert, Facts, UpstreamFacts
from proxy.policy.alerts.rules import NAMES, RULES

__all__ = ["NAMES", "RULES", "Alert", "Board", "Facts", "UpstreamFacts"]
