"""The upstream of these tests behaves as Docker Hub does; what the other tests conclude rests on this."""

import json
import urllib.error
import urllib.request
from base64 import b64encode
from email.message import Message

import pytest

from .images import Image
from .upstream import Upstream

pytestmark = pytest.mark.clients()


def test_only_the_account_may_pull_a_private_repository(upstream: Upstream, secret: Image, busybox: Image) -> None:
    private, public = (f"/v2/{image.repository}/manifests/{image.tag}" for image in (secret, busybox))
    assert _get(upstream, public, _token(upstream, busybox))[0] == 200
    status, headers, _ = _get(upstream, private, _token(upstream, secret))
    assert (status, 'error="insufficient_scope"' in headers["Www-Authenticate"]) == (401, True)
    assert _get(upstream, private, _token(upstream, secret, login=True))[0] == 200


def test_gets_of_manifests_are_counted_and_heads_are_not(upstream: Upstream, busybox: Image) -> None:
    path, token = f"/v2/{busybox.repository}/manifests/{busybox.tag}", _token(upstream, busybox)
    _, told, _ = _get(upstream, path, token)
    assert told["ratelimit-remaining"] == "9999;w=21600"
    upstream.set_remaining(0)
    assert _get(upstream, path, token)[0] == 429
    assert _get(upstream, path, token, method="HEAD")[0] == 200
    ledger = upstream.ledger
    assert (ledger.counted_pulls, ledger.refused_pulls, ledger.manifest_heads) == ({busybox.digest: 1}, 1, 1)


def test_the_cdn_takes_signed_urls_byte_for_byte_and_no_tokens(hub: Upstream, busybox: Image) -> None:
    hub.reset()
    config = busybox.blobs[0]
    token = _token(hub, busybox)
    status, headers, _ = _get(hub, f"/v2/{busybox.repository}/blobs/{config.digest}", token)
    location = headers["Location"]
    assert status == 307

    assert _get(hub, location, token)[0] == 400
    assert _get(hub, location.replace("%2F", "/"))[0] == 403
    assert hub.ledger.violations == ["Authorization was sent to the CDN", "a signed URL was re-quoted"]
    status, headers, body = _get(hub, location, Range="bytes=10-19")
    assert (status, headers["Content-Range"], len(body)) == (206, f"bytes 10-19/{config.size}", 10)
    assert hub.ledger.blob_bytes == {config.digest: 10}


def _token(upstream: Upstream, image: Image, *, login: bool = False) -> str:
    _, challenge, _ = _get(upstream, f"/v2/{image.repository}/manifests/{image.tag}")
    realm = challenge["Www-Authenticate"].split('"')[1]
    account = {"Authorization": f"Basic {b64encode(f'{upstream.username}:{upstream.pat}'.encode()).decode()}"}
    query = f"?service=registry.docker.io&scope=repository:{image.repository}:pull"
    return str(json.loads(_get(upstream, realm + query, **(account if login else {}))[2])["token"])


class _Unredirected(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _get(
    upstream: Upstream, target: str, token: str | None = None, *, method: str = "GET", **headers: str
) -> tuple[int, Message, bytes]:
    # An OCI index is shown only to those who say that they can read one.
    accept = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json"
    fields = {"Accept": accept, **headers} | ({"Authorization": f"Bearer {token}"} if token else {})
    address = target if target.startswith("http") else upstream.url + target
    request = urllib.request.Request(address, headers=fields, method=method)
    try:
        with urllib.request.build_opener(_Unredirected).open(request, timeout=30) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()
