"""The program's own log, as text or JSON lines on stderr, like the access log."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal


class _TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00Z WARNING store.fill: message`"""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")


class _JsonFormatter(logging.Formatter):
    """One object a line, with the same field names as the access log where they mean the same."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure_logging(level: str, style: Literal["text", "json"]) -> None:
    """Send the log of the whole program to stderr in this style."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
