"""Why the program did not start."""

from __future__ import annotations


class StartError(Exception):
    """The program cannot start; the message says what to do."""
