"""What a pull may cost the upstream, judged by the upstream's own ledger."""

from collections.abc import Iterable

from .images import Image
from .upstream import Ledger


def assert_fetched_once(ledger: Ledger, *images: Image) -> None:
    """Every manifest and every blob of these images was fetched exactly once, whole, and nothing else was."""
    assert ledger.counted_pulls == _once(manifest.digest for image in images for manifest in image.manifests)
    assert ledger.blob_gets == _once(blob.digest for image in images for blob in image.blobs)
    assert ledger.blob_bytes == {blob.digest: blob.size for image in images for blob in image.blobs}


def assert_cost_nothing(ledger: Ledger) -> None:
    """No counted pull, and not one byte of a blob."""
    assert (ledger.counted_pulls, ledger.refused_pulls, ledger.blob_bytes) == ({}, 0, {})


def _once(digests: Iterable[str]) -> dict[str, int]:
    # Images share layers: the same digest of two images is still one.
    return dict.fromkeys(digests, 1)
