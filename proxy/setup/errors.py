"""What can be wrong with a set-up. The messages are for people."""

from __future__ import annotations


class SetupError(Exception):
    """The set-up cannot be made or put in place."""


class UnknownClient(SetupError):
    """No such client. The message lists those there are."""


class BadCacheUrl(SetupError):
    """Not an address of a cache. The message never repeats what was given: it may come from a request."""


class Refused(SetupError):
    """A file that is there may not be touched. The message says why, and what to do."""


class NotWritten(SetupError):
    """The file system did not allow it."""
