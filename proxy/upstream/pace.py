"""Whether a transfer comes forward: what only drips is broken off, so that the fill asks again, perhaps elsewhere.

The idle time-out does not see it, since every drop begins that anew. The floor is far below any link that somebody
pulls images through; time in which nobody waits for upstream, such as that of a slow disk, does not count.
"""

from __future__ import annotations

from typing import Final

from proxy.oci.errors import Unavailable

FLOOR_BYTES_PER_SECOND: Final = 1024


class Pace:
    """What one transfer brings, averaged over each `window` seconds of waiting for it: the idle time-out."""

    __slots__ = ("_received", "_upstream", "_waited", "_window")

    def __init__(self, upstream: str, window: float) -> None:
        self._upstream = upstream
        self._window = window
        self._waited = 0.0
        self._received = 0

    def note(self, seconds: float, received: int) -> None:
        """So many bytes came after so long a wait. Raises Unavailable if that is too slow, all in all."""
        self._waited += seconds
        self._received += received
        if self._waited < self._window:
            return
        if self._received < FLOOR_BYTES_PER_SECOND * self._waited:
            raise Unavailable(f"{self._upstream}: less than {FLOOR_BYTES_PER_SECOND} bytes a second arrive")
        self._waited, self._received = 0.0, 0
