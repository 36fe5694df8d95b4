"""What an upstream's answer says, and whether that can be believed: digests, types, manifests, lists.

Every error names the upstream that was asked, and nothing of what it sent.
"""

from __future__ import annotations

from proxy.oci.errors import DigestInvalid, QueryInvalid, Unavailable
from proxy.oci.listings import Listing, next_query, passable_filters, passable_warnings
from proxy.oci.manifests import Manifest, declared_media_type, is_manifest, media_type_of
from proxy.oci.names import Digest, Reference, Tag
from proxy.upstream.transport import Answer


def content_digest(answer: Answer) -> Digest | None:
    """The digest in Docker-Content-Digest; None if there is none that we can verify."""
    try:
        return Digest.parse(answer.headers.get("Docker-Content-Digest", ""))
    except DigestInvalid:
        return None


def media_type(answer: Answer) -> str:
    """The type in Content-Type, without parameters; empty if there is none."""
    return media_type_of(answer.headers.get("Content-Type", ""))


def confirmed_digest(upstream: str, reference: Reference, said: Digest | None) -> Digest | None:
    """What a reference points to, as far as upstream said it. Raises Unavailable if it said another digest."""
    if isinstance(reference, Tag):
        return said
    if said is not None and said.algorithm == reference.algorithm and said != reference:
        raise Unavailable(f"{upstream} answered {said} where {reference} was asked for")
    return reference


def verified_manifest(upstream: str, reference: Reference, answer: Answer, body: bytes) -> Manifest:
    """The manifest whose digest the body has. Raises Unavailable if it has not the one that was asked for or told."""
    expected = reference if isinstance(reference, Digest) else content_digest(answer)
    if expected is not None and not expected.matches(body):
        raise Unavailable(f"{upstream}: a manifest whose bytes are not those of its digest {expected}")
    if expected is None and not is_manifest(body):  # Nobody vouches for these bytes, and 200 is soon said.
        raise Unavailable(f"{upstream}: an answer that is not a manifest")
    told = media_type(answer) or declared_media_type(body) or "application/octet-stream"
    return Manifest(expected or Digest.of(body), told, body)


def listing_of(upstream: str, answer: Answer, listed: str, body: bytes) -> Listing:
    """A page of a list of this media type. Raises Unavailable if its next page cannot be asked for."""
    try:
        following = next_query(answer.headers.getall("Link", ()))
    except QueryInvalid:
        raise Unavailable(f"{upstream}: the next page of a list cannot be asked for") from None
    filters = passable_filters(answer.headers.getall("OCI-Filters-Applied", ()))
    return Listing(listed, body, following, filters, passable_warnings(answer.headers.getall("Warning", ())))
