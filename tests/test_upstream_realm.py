"""Which token realms may be asked (PROTOCOL 2.1, 8.21)."""

from __future__ import annotations

import pytest
from yarl import URL

from proxy.oci.errors import Unavailable
from proxy.upstream.realm import trusted_realm

HUB = "https://registry-1.docker.io"


@pytest.mark.parametrize(
    ("realm", "upstream"),
    [
        ("https://auth.docker.io/token", HUB),
        ("https://AUTH.Docker.IO./token", HUB),
        ("https://registry-1.docker.io:8443/token", HUB),
        ("https://docker.io/token", HUB),
        ("https://ghcr.io/token?x=1", "https://ghcr.io"),
        ("https://login.corp.internal/t", "https://registry.corp.internal"),
        ("https://127.0.0.1:9/t", "https://127.0.0.1:8"),
        ("https://[::1]:9/t", "https://[::1]:8"),
        ("https://registry:9/t", "https://registry:8"),
        ("https://registry./t", "https://registry"),
        ("http://127.0.0.1:9/t", "http://127.0.0.1:8"),
        ("http://auth.corp.example/t", "http://registry.corp.example"),
        ("https://127.0.0.1:9/t", "http://127.0.0.1:8"),
    ],
)
def test_own_host_and_own_domain_are_trusted(realm: str, upstream: str) -> None:
    assert str(trusted_realm(realm, URL(upstream))).lower() == realm.lower()


@pytest.mark.parametrize(
    ("realm", "upstream"),
    [
        ("http://auth.docker.io/token", HUB),
        ("http://registry-1.docker.io/token", HUB),
        ("https://evil.example/token", HUB),
        ("https://evil.io/token", HUB),
        ("https://docker.io.evil.example/token", HUB),
        ("https://evildocker.io/token", HUB),
        ("https://io/token", HUB),
        ("https://b.github.io/t", "https://a.github.io"),
        ("https://b.co.uk/t", "https://a.co.uk"),
        ("https://169.254.169.254/latest", HUB),
        ("http://127.0.0.2/t", "http://127.0.0.1"),
        ("https://1.2.3.4/t", "https://9.9.3.4"),
        ("https://[::2]/t", "https://[::1]"),
        ("http://localhost/t", "http://127.0.0.1"),
        ("http://auth/t", "http://registry"),
        ("https://user:password@auth.docker.io/token", HUB),
        ("https://user@auth.docker.io/token", HUB),
        ("https://auth.docker.io@evil.example/token", HUB),
        ("https://evil.example#@auth.docker.io/", HUB),
        ("https://evil.example\\@auth.docker.io/", HUB),
        ("ftp://auth.docker.io/token", HUB),
        ("file:///etc/passwd", HUB),
        ("javascript:alert(1)", HUB),
        ("//auth.docker.io/token", HUB),
        ("/token", HUB),
        ("auth.docker.io", HUB),
        ("https://", HUB),
        ("https://auth.docker.io:99999/", HUB),
        ("https://auth.docker.io:port/", HUB),
        ("", HUB),
    ],
)
def test_all_others_are_refused(realm: str, upstream: str) -> None:
    with pytest.raises(Unavailable):
        trusted_realm(realm, URL(upstream))


def test_a_refusal_names_the_host_of_the_realm_and_no_more() -> None:
    with pytest.raises(Unavailable, match=r"evil\.example") as refused:
        trusted_realm("https://user:hunter2@evil.example/token?key=hunter2", URL(HUB))
    assert "hunter2" not in str(refused.value)
