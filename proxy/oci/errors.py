"""Every error a client can be answered with, by the specification's codes.

One class per meaning. `Unknown` ("upstream says it is not there") and `Unavailable` ("we could not ask") never mix:
the first may be remembered, the second may be answered with something stale.

    RegistryError
    ├── NameInvalid, TagInvalid, DigestInvalid, RangeInvalid, QueryInvalid, Unsupported    the request is wrong
    ├── NameUnknown, ManifestUnknown, BlobUnknown                               upstream does not have it
    ├── Denied                                                                  nobody may have it through us
    ├── TooManyRequests                                                         upstream's limit
    └── Unavailable                                                             upstream, or our disk, cannot answer now

OCI distribution spec, "Error codes"; the codes that distribution adds are in PROTOCOL 6.
"""

from __future__ import annotations

import json
from typing import ClassVar


class RegistryError(Exception):
    """An answer in the specification's error format. `message` is for people and never holds a secret."""

    code: ClassVar[str] = "UNKNOWN"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, detail: object = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.retry_after = retry_after
        """Seconds after which asking again makes sense, where that is known."""

    def body(self) -> bytes:
        """The JSON document of this error, as bytes."""
        error = {"code": self.code, "message": self.message, "detail": self.detail}
        return json.dumps({"errors": [error]}).encode()


class NameInvalid(RegistryError):
    """The repository name does not follow the specification's grammar."""

    code, status = "NAME_INVALID", 400


class TagInvalid(RegistryError):
    """The tag does not follow the specification's grammar."""

    code, status = "TAG_INVALID", 400


class DigestInvalid(RegistryError):
    """The digest is malformed, or of an algorithm that we cannot verify."""

    code, status = "DIGEST_INVALID", 400


class RangeInvalid(RegistryError):
    """The requested range starts beyond the end of the blob."""

    code, status = "RANGE_INVALID", 416


class QueryInvalid(RegistryError):
    """The query of a list cannot be sent on, or upstream refuses it."""

    code, status = "PAGINATION_NUMBER_INVALID", 400


class Unsupported(RegistryError):
    """A verb that a pull-through cache does not answer."""

    code, status = "UNSUPPORTED", 405


class NotServed(RegistryError):
    """A path that is none of the specification's, or one that we do not serve."""

    code, status = "UNSUPPORTED", 404


class NameUnknown(RegistryError):
    """No such repository, or no such upstream registry."""

    code, status = "NAME_UNKNOWN", 404


class ManifestUnknown(RegistryError):
    """Upstream has no such tag or manifest in this repository."""

    code, status = "MANIFEST_UNKNOWN", 404


class BlobUnknown(RegistryError):
    """Upstream has no such blob in this repository."""

    code, status = "BLOB_UNKNOWN", 404


class Denied(RegistryError):
    """Upstream or our own access rule refuses this repository. Never sent with a challenge (PROTOCOL 4.5)."""

    code, status = "DENIED", 403


class TooManyRequests(RegistryError):
    """Upstream's limit is reached and nothing stored can answer."""

    code, status = "TOOMANYREQUESTS", 429


class Unavailable(RegistryError):
    """Upstream could not be asked, or answered nonsense: 503, on which clients retry or fail over (PROTOCOL 10)."""

    code, status = "UNAVAILABLE", 503
