"""How an upstream's certificates are verified: by the system's authorities, by one of the operator's, or not at all."""

from __future__ import annotations

import ssl

from proxy.config import UpstreamOptions


def tls_context(options: UpstreamOptions) -> ssl.SSLContext:
    """The context for every connection of this upstream. Blocking: reads files. Raises OSError, as ssl.SSLError is."""
    context = ssl.create_default_context()
    if options.ca is not None:
        context.load_verify_locations(options.ca)
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
