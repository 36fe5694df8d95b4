"""What a TLS handshake and a server's clock mean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from proxy.doctor.findings import Finding, failed, ok
from proxy.units import format_duration

MAX_SKEW_SECONDS: Final = 120.0
_DAY: Final = 86400.0

# OpenSSL's X509_V_ERR_ numbers (x509_vfy.h).
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNTRUSTED: Final = frozenset({2, 18, 19, 20, 21, 24, 27})
_OTHER_NAME: Final = frozenset({62, 64})

_SET_CLOCK: Final = (
    "Set this machine's clock (a container has its host's) and keep it right:\n    timedatectl set-ntp true"
)


@dataclass(frozen=True, slots=True)
class Handshake:
    """What came of a TLS handshake. Times in seconds since the epoch."""

    version: str = ""
    not_after: float | None = None
    refused: int | None = None
    """OpenSSL's number for why the certificate was refused."""
    reason: str = ""
    """OpenSSL's words for that, or ours for another failure."""
    their_time: float | None = None
    """What the server's clock says, asked only where dates are in doubt, and then of a server that is not verified."""


def judge_tls(host: str, found: Handshake, now: float) -> Finding:
    """Whether the server proves who it is."""
    if found.refused is None and not found.reason:
        return ok(f"{found.version}, certificate good{_expiry(found.not_after, now)}")
    if found.refused in (_EXPIRED, _NOT_YET_VALID):
        how = "has expired" if found.refused == _EXPIRED else "is not valid yet"
        skew = None if found.their_time is None else now - found.their_time
        if skew is not None and abs(skew) > MAX_SKEW_SECONDS:
            return failed(f"its certificate {how}, by a clock that is wrong here: {_skew(skew)}", _SET_CLOCK)
        return failed(
            f"its certificate {how}", f"Look at this machine's clock (date); if it is right, {host} has to renew it."
        )
    if found.refused in _UNTRUSTED:
        return failed(
            f"its certificate is of a CA that this system does not trust ({found.reason})",
            "If it is your own registry, or a proxy of your company reads TLS: add its CA to the system "
            "(/usr/local/share/ca-certificates/, then update-ca-certificates), or name a bundle with it in "
            "SSL_CERT_FILE for pullthrough. If not, somebody is in between: do not go on.",
        )
    if found.refused in _OTHER_NAME:
        return failed(
            f"its certificate is not for {host} ({found.reason})",
            "Is the url of this upstream right, and does the name resolve to the registry (/etc/hosts, DNS)?",
        )
    if found.refused is not None:
        return failed(
            f"its certificate was refused ({found.reason})", f"This shows it:\n    openssl s_client -connect {host}:443"
        )
    return failed(
        f"no TLS: {found.reason}",
        "Does that port speak https? A registry without TLS is written http:// in the url of the upstream; a firewall "
        "that inspects TLS breaks it too.",
    )


def parse_date(value: str | None) -> float | None:
    """A Date header as seconds since the epoch; None if there is none that can be read."""
    try:
        date = parsedate_to_datetime(value or "")
    except (ValueError, TypeError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def judge_clock(their_time: float, now: float) -> Finding:
    """Whether our clock is the world's."""
    skew = now - their_time
    if abs(skew) <= MAX_SKEW_SECONDS:
        return ok(f"agrees with the upstream's within {format_duration(max(1, round(abs(skew))))}")
    return failed(_skew(skew) + ": certificates and tokens seem expired, or not valid yet", _SET_CLOCK)


def _skew(skew: float) -> str:
    side = "fast" if skew > 0 else "slow"
    return f"this machine's clock is {format_duration(60 * round(abs(skew) / 60))} {side}"


def _expiry(not_after: float | None, now: float) -> str:
    if not_after is None:
        return ""
    date = datetime.fromtimestamp(not_after, UTC).date().isoformat()
    days = int((not_after - now) / _DAY)
    return f" until {date}" + (f" ({days} days left)" if days < 30 else "")
