"""Lists that a registry gives in pages: the tags of a repository, and the referrers of a digest.

OCI distribution spec, "Listing Tags" and "Listing Referrers". A page is kept as it came; of the `Link` header that
names the next one only the query is taken, since the path and host of our answers are ours (PROTOCOL 6, 8.21).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode

from proxy.oci.errors import QueryInvalid

MAX_LISTING_BYTES: Final = 8 * 1024 * 1024
MAX_QUERY_LENGTH: Final = 2048

_LINK: Final = re.compile(r"<([^<>]*)>((?:\s*;\s*[^\s=;,]+\s*=\s*(?:\"[^\"]*\"|[^\s;,\"]*))*)")
_WARNING: Final = re.compile(r'\A299 - "(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"\Z')
_FILTERS: Final = re.compile(r"\A[\x20-\x7e]{1,200}\Z")
_NEXT: Final = re.compile(r";\s*rel\s*=\s*(?:\"[^\"]*\bnext\b[^\"]*\"|next(?=\s*(?:;|\Z)))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Listing:
    """One page, byte for byte. `next_query` asks for the one after it; `filters` and `warnings` are headers' values."""

    media_type: str
    body: bytes
    next_query: str | None = None
    filters: str | None = None
    warnings: tuple[str, ...] = ()


def next_query(links: Iterable[str]) -> str | None:
    """The query of the URL that is `rel="next"` in these Link headers (RFC 8288), written anew; None without.

    Raises QueryInvalid: a list that seems to end where it goes on would be wrong.
    """
    for line in links:
        for target, parameters in _LINK.findall(line):
            if _NEXT.search(parameters):
                return clean_query(target.partition("#")[0].partition("?")[2]) or None
    return None


def clean_query(query: str) -> str:
    """A query as we send it on: parsed and written anew, without `ns`, which is between a client and us.

    Raises QueryInvalid for one that is too long, has too many fields, or is not UTF-8.
    """
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=20, errors="strict")
        written = urlencode([(key, value) for key, value in fields if key != "ns"])
    except ValueError:
        raise QueryInvalid("the query has too many fields, or is not UTF-8") from None
    if len(written) > MAX_QUERY_LENGTH:
        raise QueryInvalid(f"the query is longer than {MAX_QUERY_LENGTH} characters")
    return written


def passable_filters(values: Iterable[str]) -> str | None:
    """What a registry says it filtered by, if that can be said in a header again; None without."""
    filters = ", ".join(values)
    return filters if _FILTERS.match(filters) else None


def passable_warnings(values: Iterable[str]) -> tuple[str, ...]:
    """Of these Warning values those that the specification knows: code 299, agent `-`, a quoted text and no date."""
    return tuple(value for value in values if _WARNING.match(value))
