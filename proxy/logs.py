"""The program's own log, as text or JSON lines on stderr, like the access log.

What a client sent stays out of it: a malformed request may hold a password, and a control character could forge a line.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Final, Literal

from aiohttp.http_exceptions import HttpProcessingError

_VISIBLE: Final = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
"""Control characters and line separators, as Python writes them in a string."""


class _TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00Z WARNING store.fill: message`"""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).translate(_VISIBLE)


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


class _ClientNoise(logging.Filter):
    """Makes one `info` line of what aiohttp reports, with a traceback, whenever a client sends what is no HTTP."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if record.name != "aiohttp.server" or not isinstance(error, HttpProcessingError):
            return True
        record.msg = "a request that is no HTTP was refused: %s"
        record.args = (type(error).__name__,)
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.INFO, "INFO"
        return logging.getLogger().isEnabledFor(logging.INFO)


def configure_logging(level: str, style: Literal["text", "json"]) -> None:
    """Send the log of the whole program to stderr in this style."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter())
    handler.addFilter(_ClientNoise())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
