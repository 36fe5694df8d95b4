"""What is said to a client whose request cannot be read: an error as all are, in words of our own.

aiohttp's own words quote what came, which may be a password, and name its version.
"""

from __future__ import annotations

from typing import Final

from aiohttp.http_exceptions import LineTooLong

from proxy.oci.errors import RegistryError

MAX_LINE_BYTES: Final = 8 * 1024
"""Of a request line."""
MAX_FIELD_BYTES: Final = 16 * 1024
"""Of one header field: several times the longest token that a registry is known to give (PROTOCOL 2)."""


class Malformed(RegistryError):
    """Not HTTP as it should be."""

    code, status = "UNSUPPORTED", 400


class HeaderLate(RegistryError):
    """The header of a request did not come in time."""

    code, status = "UNSUPPORTED", 408


class TargetTooLong(RegistryError):
    """The request line is too long."""

    code, status = "UNSUPPORTED", 414


class HeaderTooLarge(RegistryError):
    """There is too much in the header."""

    code, status = "UNSUPPORTED", 431


def error_of(error: BaseException) -> RegistryError:
    """The answer to what aiohttp's parser raised, with these bounds."""
    if isinstance(error, LineTooLong):
        if error.args[1] == MAX_LINE_BYTES:
            return TargetTooLong("the target of the request is too long")
        return HeaderTooLarge("a field of the header is too long")
    if str(getattr(error, "message", "")).startswith("Too many headers"):
        return HeaderTooLarge("the header has too many fields")
    return Malformed("this is no request in HTTP/1.1")
