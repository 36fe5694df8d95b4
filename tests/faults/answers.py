"""What the registry, its CDN and its token server answer."""

from __future__ import annotations

from tests.blob_rig import REPOSITORY
from tests.fake_hub import at
from tests.faults.pulling import Act, fault
from tests.faults.stand import Asked, Stand

_HEAD, _GET = at("manifest", method="HEAD"), at("manifest", method="GET")
_BLOB = at("blob", method="GET")


def _failing(target: object, status: int, times: int | None = None) -> Act:
    return lambda stand: stand.hub.fail(target, status, times=times)  # type: ignore[arg-type]


def _pulls_used_up(stand: Stand) -> None:
    stand.hub.set_remaining(0)


def _pulls_are_back(stand: Stand) -> None:
    stand.hub.set_remaining(100)


def _password_rejected(stand: Stand) -> None:
    stand.hub.pat = "another"


def _password_accepted(stand: Stand) -> None:
    stand.hub.pat = "dckr_pat_test"


def _tag_gone(stand: Stand) -> None:
    stand.hub.untag(REPOSITORY, "latest")


def _tag_back(stand: Stand) -> None:
    stand.hub.tag(REPOSITORY, "latest", stand.image.digest)


def _token_garbage(stand: Stand) -> None:
    stand.hub.garbage("token", b'{"token": 7}')


ANSWERS = (
    *(
        fault(f"the registry answers {status} for the blob, {often}", Asked.COLD_BLOB, _failing(_BLOB, status, times))
        for status in (500, 502, 503, 504)
        for often, times in (("once", 1), ("always", None))
    ),
    fault("the CDN answers 503, once", Asked.COLD_BLOB, _failing("cdn", 503, 1)),
    fault("the CDN answers 503, always", Asked.COLD_BLOB, _failing("cdn", 503)),
    fault("the CDN answers 403: the signed URL is dead, always", Asked.COLD_BLOB, _failing("cdn", 403)),
    fault("the CDN answers 404, always", Asked.COLD_BLOB, _failing("cdn", 404)),
    fault("the registry answers 404 for the blob", Asked.COLD_BLOB, _failing(_BLOB, 404)),
    fault("the registry answers 403 for the blob", Asked.COLD_BLOB, _failing(_BLOB, 403)),
    fault("the registry answers 500", Asked.OLD_TAG, _failing("registry", 500)),
    fault("the registry answers 500, once", Asked.NEW_TAG, _failing("registry", 500, 1)),
    fault("the registry answers 500, always", Asked.NEW_TAG, _failing("registry", 500)),
    fault("the registry answers 503 for the manifest itself", Asked.MOVED_TAG, _failing(_GET, 503)),
    fault("the pull limit is reached (429 for manifests)", Asked.NEW_TAG, _pulls_used_up, mend=_pulls_are_back),
    fault("the pull limit is reached (429 for manifests)", Asked.MOVED_TAG, _pulls_used_up, mend=_pulls_are_back),
    fault("the abuse limit is reached (429 for everything)", Asked.OLD_TAG, lambda s: s.hub.abuse_limit()),
    fault("the abuse limit is reached (429 for everything)", Asked.COLD_BLOB, lambda s: s.hub.abuse_limit()),
    fault("the access token is rejected (401)", Asked.COLD_BLOB, _password_rejected, mend=_password_accepted),
    fault("the access token is rejected (401)", Asked.NEW_TAG, _password_rejected, mend=_password_accepted),
    fault("access is denied (403)", Asked.OLD_TAG, _failing(_HEAD, 403)),
    fault("the tag has vanished (404)", Asked.OLD_TAG, _tag_gone, mend=_tag_back),
    fault("the tag has vanished (404)", Asked.NEW_TAG, _tag_gone, mend=_tag_back),
    fault("the token server answers 500", Asked.OLD_TAG, _failing("token", 500)),
    fault("the token server answers 500, always", Asked.COLD_BLOB, _failing("token", 500)),
    fault("the token server answers without a token", Asked.COLD_BLOB, _token_garbage),
    fault("the token server accepts and says nothing", Asked.OLD_TAG, lambda s: s.hub.hang("token")),
    fault("the token server accepts and says nothing", Asked.COLD_BLOB, lambda s: s.hub.hang("token")),
)
