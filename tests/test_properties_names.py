"""Names, tags and digests: exactly those of the specification's grammar, written here a second time, are accepted."""

from __future__ import annotations

import string
from itertools import groupby
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.oci.errors import RegistryError
from proxy.oci.images import ImageName
from proxy.oci.names import DOCKER_HUB, Digest, Repository, Tag, parse_reference
from tests.properties import examples

LOWER = string.ascii_lowercase + string.digits
WORD = string.ascii_letters + string.digits + "_"
TRICKY = [
    *".-_/:@%\\~ \n\r\t\0",
    "..",
    "/../",
    "__",
    "___",
    "._",
    "--",
    "é",
    "\u0130",
    "\u0661",
    "\ud800",
    "A",
    "a",
    "0",
    "sha256:",
    "library",
]


def is_component(text: str) -> bool:
    """Lower-case letters and digits; between two of them one dot, one or two underscores, or any number of hyphens."""
    if not text or text[0] not in LOWER or text[-1] not in LOWER:
        return False
    runs = ["".join(run) for between, run in groupby(text, lambda each: each not in LOWER) if between]
    return all(each in (".", "_", "__") or set(each) == {"-"} for each in runs)


def is_name(text: str) -> bool:
    return len(text) <= 255 and all(map(is_component, text.split("/")))


def is_tag(text: str) -> bool:
    return 1 <= len(text) <= 128 and text[0] in WORD and all(each in WORD + ".-" for each in text)


def is_digest(text: str) -> bool:
    return any(
        text.startswith(prefix)
        and len(text) == len(prefix) + size
        and set(text[len(prefix) :]) <= set("0123456789abcdef")
        for prefix, size in (("sha256:", 64), ("sha512:", 128))
    )


def accepts(parse: Any, text: str) -> bool:
    """Whether it parses; what does not raises a RegistryError that can be answered."""
    try:
        parse(text)
    except RegistryError as error:
        assert 400 <= error.status < 500
        assert error.body().isascii()
        return False
    return True


pieces = st.lists(st.one_of(st.sampled_from(TRICKY), st.text(LOWER, max_size=3), st.text(max_size=2)), max_size=8)
tricky = pieces.map("".join)
components = st.lists(
    st.tuples(st.text(LOWER, min_size=1, max_size=5), st.sampled_from([".", "_", "__", "-", "---"])),
    min_size=1,
    max_size=3,
).map(lambda parts: "".join(word + separator for word, separator in parts).rstrip("._-"))
names = st.lists(components, min_size=1, max_size=4).map("/".join)
tags = st.tuples(st.sampled_from(WORD), st.text(WORD + ".-", max_size=127)).map("".join)
digests = st.one_of(
    st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format),
    st.text("0123456789abcdef", min_size=128, max_size=128).map("sha512:{}".format),
)


def nearly(valid: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Valid ones with something tricky put in, or in the place of something."""
    parts = st.tuples(valid, st.integers(0, 140), st.integers(0, 2), st.sampled_from([*TRICKY, ""]))
    return parts.map(lambda each: each[0][: each[1]] + each[3] + each[0][each[1] + each[2] :])


@examples(220)
@given(st.one_of(tricky, names, nearly(names), st.text(LOWER + "/", min_size=250, max_size=260)))
def test_repository_names_are_those_of_the_grammar(text: str) -> None:
    assert accepts(Repository.parse, text) == is_name(text)


@examples(160)
@given(st.one_of(tricky, tags, nearly(tags), st.text(WORD, min_size=126, max_size=130)))
def test_tags_are_those_of_the_grammar(text: str) -> None:
    assert accepts(Tag.parse, text) == is_tag(text)


@examples(160)
@given(st.one_of(tricky, digests, nearly(digests)))
def test_digests_are_those_that_can_be_computed(text: str) -> None:
    assert accepts(Digest.parse, text) == is_digest(text)


@examples(160)
@given(st.one_of(tricky, tags, nearly(tags), digests, nearly(digests)))
def test_a_reference_is_a_tag_or_a_digest_and_never_both(text: str) -> None:
    assert accepts(parse_reference, text) == (is_tag(text) or is_digest(text))
    assert not (is_tag(text) and is_digest(text))


@examples(110)
@given(names, tags, digests)
def test_what_was_parsed_is_written_as_it_was_read(name: str, tag: str, digest: str) -> None:
    official = name if "/" in name else f"library/{name}"
    assert str(Repository.parse(name)) == f"{DOCKER_HUB}/{official}"
    assert str(Repository.parse(name, "quay.io")) == f"quay.io/{name}"
    assert str(parse_reference(tag)) == tag
    assert str(parse_reference(digest)) == digest


@examples(110)
@given(st.one_of(names, tricky), st.one_of(st.none(), tags, digests, tricky))
def test_an_image_name_is_read_back_from_what_is_written(name: str, reference: str | None) -> None:
    text = name + ("" if reference is None else ("@" if ":" in reference else ":") + reference)
    if accepts(ImageName.parse, text):
        read = ImageName.parse(text)
        assert ImageName.parse(str(read)) == read
        assert is_name(read.repository.name)


@examples(110)
@given(st.one_of(digests, nearly(digests), tricky))
def test_no_digest_leads_out_of_the_store(text: str) -> None:
    if not accepts(Digest.parse, text):
        return
    digest = Digest.parse(text)
    for component in (digest.algorithm, digest.hex):
        assert component.isascii() and component.isalnum()
        assert Path(component).name == component
