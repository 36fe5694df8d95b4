"""Docker Hub's stand-in, made of real parts: Debian's docker-registry behind a token server, a front and a CDN.

`Upstream` is the side the tests hold. The front, the token server and the CDN run in a process of their own
(`python -m tests.clients.upstream`), so that their work never mixes with that of the tests or of the cache.
"""

from .ledger import Ledger
from .upstream import Upstream

__all__ = ["Ledger", "Upstream"]
