"""Manifests that are none, and answers to a HEAD that lie."""

from __future__ import annotations

from tests.blob_rig import MIB
from tests.fake_hub import at, spoilt
from tests.faults.pulling import fault
from tests.faults.stand import Asked

_GET = at("manifest", method="GET")
_HEAD = at("manifest", method="HEAD")
_LOGIN_PAGE = b"<html>Please log in to the network</html>"

MANIFESTS = (
    fault("the manifest has other bytes than its digest", Asked.NEW_TAG, lambda s: s.hub.corrupt(_GET, 5)),
    fault("the manifest has other bytes than its digest", Asked.MOVED_TAG, lambda s: s.hub.corrupt(_GET, 5)),
    fault("the manifest has other bytes than its digest", Asked.MANIFEST, lambda s: s.hub.corrupt(_GET, 5)),
    fault("the manifest is cut half-way, once", Asked.NEW_TAG, lambda s: s.hub.cut(_GET, 100)),
    fault("the manifest stops half-way", Asked.MOVED_TAG, lambda s: s.hub.hold(_GET, 100)),
    fault("the manifest is empty", Asked.NEW_TAG, lambda s: s.hub.garbage(_GET, b"")),
    fault("the manifest is a login page", Asked.NEW_TAG, lambda s: s.hub.garbage(_GET, _LOGIN_PAGE)),
    fault("the manifest is of 64 MiB", Asked.NEW_TAG, lambda s: s.hub.garbage(_GET, bytes(64 * MIB))),
    fault(
        "Content-Length of the manifest says 1 EB",
        Asked.NEW_TAG,
        lambda s: s.hub.change(_GET, spoilt.said_length(10**18), content_only=True),
    ),
    fault("HEAD names another digest", Asked.NEW_TAG, lambda s: s.hub.wrong_digest_header(_HEAD)),
    fault("HEAD names another digest", Asked.OLD_TAG, lambda s: s.hub.wrong_digest_header(_HEAD)),
    fault("HEAD names no digest", Asked.NEW_TAG, lambda s: s.hub.no_digest_header(_HEAD)),
    fault("HEAD of the manifest is not answered", Asked.OLD_TAG, lambda s: s.hub.hang(_HEAD)),
    fault("HEAD of the manifest is not answered", Asked.NEW_TAG, lambda s: s.hub.hang(_HEAD)),
)
