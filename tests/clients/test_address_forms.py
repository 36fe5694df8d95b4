"""Every client gets the image in every way it can write the cache's address: cold, warm, and with the upstream down.

Tags are stale at once, so that warm pulls ask the upstream and pulls without it get the stale answer. Each form has an
image of its own. PULLTHROUGH_CLIENT_TABLE names a file for the table that comes of it.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from .address_forms import FORMS, Bed, Form, Pull, Table
from .cache import Cache
from .costs import assert_cost_nothing
from .images import Image, Publisher
from .processes import CommandFailed
from .upstream import Ledger, Upstream

_REPOSITORY = "library/forms"


@pytest.fixture(scope="module")
def forms_hub() -> Iterator[Upstream]:
    """An upstream with the repository of this file."""
    with (
        tempfile.TemporaryDirectory(prefix="pt-hub-") as directory,
        Upstream(Path(directory), public=[_REPOSITORY], private=[]) as hub,
    ):
        yield hub


@pytest.fixture(scope="module")
def bed(forms_hub: Upstream) -> Iterator[Bed]:
    """One cache, and one of each client, for all forms."""
    with ExitStack() as closing:
        directory = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="pt-forms-")))
        cache = closing.enter_context(Cache(directory, forms_hub, freshness={"tags": "1ms"}))
        yield Bed(cache, forms_hub, directory, closing)


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    """What the tests of this file found, shown and written when they are done."""
    table = Table()
    request.config.pluginmanager.register(table)
    yield table
    if file := os.environ.get("PULLTHROUGH_CLIENT_TABLE"):
        Path(file).write_text(table.markdown())


def _form(form: Form) -> ParameterSet:
    return pytest.param(form, id=form.tag, marks=pytest.mark.clients(*form.programs))


@pytest.mark.parametrize("form", [_form(form) for form in FORMS])
def test_an_image_comes_cold_and_warm_and_with_the_upstream_down(form: Form, bed: Bed, table: Table) -> None:
    hub = bed.hub
    image = Publisher(hub.origin).busybox(_REPOSITORY, form.tag, mark=form.tag)

    hub.reset()
    with table.cell(form, "cold") as remark:
        assert _served(bed, image, form.cold or form.pull) >= image.size
        _assert_each_was_fetched_once(hub.ledger, image)
        remark(f"{hub.ledger.counted_pulls.total()} pulls")

    hub.reset()
    with table.cell(form, "warm") as remark:
        assert _served(bed, image, form.pull) >= image.size
        assert_cost_nothing(hub.ledger)
        remark("0 pulls")

    with hub.stopped(), table.cell(form, "upstream down") as remark:
        stale = bed.cache.metrics().get("pullthrough_stale_total", 0)
        assert _served(bed, image, form.pull) >= image.size
        is_stale = bed.cache.metrics().get("pullthrough_stale_total", 0) > stale
        remark("stale tag" if is_stale else "by digest")
        assert is_stale == ("digest-only" not in form.address), "a digest is never stale, and these tags all are"
    assert hub.violations == []


@pytest.mark.clients("podman")
def test_a_mirror_for_digests_only_is_not_asked_for_tags(bed: Bed) -> None:
    form = next(form for form in FORMS if form.client.startswith("podman") and "digest-only" in form.address)
    image = Publisher(bed.hub.origin).busybox(_REPOSITORY, form.tag, mark=form.tag)
    form.pull(bed, image)
    before = bed.cache.metrics()["pullthrough_requests_total"]
    with pytest.raises(CommandFailed):
        bed.tools.podman_pull(image.name)
    assert bed.cache.metrics()["pullthrough_requests_total"] == before


def _served(bed: Bed, image: Image, pull: Pull) -> float:
    """Pull into an empty client, and return how many bytes of blobs the cache sent it."""
    before = bed.cache.metrics(kind="blob").get("pullthrough_served_bytes_total", 0)
    pull(bed, image)
    return bed.cache.metrics(kind="blob")["pullthrough_served_bytes_total"] - before


def _assert_each_was_fetched_once(ledger: Ledger, image: Image) -> None:
    """All of the image, and of its attestation what the client asks for: nothing of it twice."""
    manifests = {manifest.digest for manifest in image.manifests}
    assert manifests <= ledger.counted_pulls.keys() <= manifests | {other.digest for other in image.others}
    assert {blob.digest: blob.size for blob in image.blobs}.items() <= ledger.blob_bytes.items()
    assert {*ledger.counted_pulls.values(), *ledger.blob_gets.values()} == {1}
