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

MAX_LISTING_BYTES: Final = 8 * 1024 * 1024
MAX_QUERY_LENGTH: Final = 2048

_LINK: Final = re.compile(r"<([^<>]*)>((?:\s*;\s*[^\s=;,]+\s*=\s*(?:\"[^\"]*\"|[^\s;,\"]*))*)")
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
    """The query of the URL that is `rel="next"` in these Link headers (RFC 8288), written anew; None without."""
    for line in links:
        for target, parameters in _LINK.findall(line):
            if _NEXT.search(parameters):
                return clean_query(target.partition("#")[0].partition("?")[2]) or None
    return None


def clean_query(query: str) -> str:
    """A query as we send it on: parsed and written anew, without `ns`, which is between a client and us.

    What is too long or has too many fields is no page of anything: it is left out.
    """
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError:
        return ""
    written = urlencode([(key, value) for key, value in fields if key != "ns"])
    return written if len(written) <= MAX_QUERY_LENGTH else ""
