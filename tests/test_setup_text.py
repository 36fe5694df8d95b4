"""What a client is told, as pure text: the address it is told, and the form of address that it understands."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from proxy.setup import (
    CLIENTS,
    BadCacheUrl,
    CacheUrl,
    Setup,
    UnknownClient,
    cache_url,
    clients_text,
    make_setup,
    setup_text,
)

URL = "http://cache:5000"
UPSTREAMS = ("docker.io", "ghcr.io", "registry.example:5000")


def setup(client: str, url: str = URL, upstreams: tuple[str, ...] = UPSTREAMS) -> Setup:
    return make_setup(client, url, upstreams)


def files(made: Setup) -> dict[str, str]:
    return {part.path: part.content for part in made.parts if part.path is not None}


def toml(made: Setup, path: str) -> dict[str, Any]:
    return tomllib.loads(files(made)[path])


# The address, from a request


@pytest.mark.parametrize(
    ("header", "url"),
    [
        ("cache:5000", "http://cache:5000"),
        ("cache", "http://cache"),
        ("Cache.Example:5000", "http://cache.example:5000"),
        ("my_cache-1:80", "http://my_cache-1:80"),
        ("192.0.2.7:5000", "http://192.0.2.7:5000"),
        ("[2001:db8::1]:5000", "http://[2001:db8::1]:5000"),
        ("[::1]", "http://[::1]"),
    ],
)
def test_the_host_header_tells_the_address(header: str, url: str) -> None:
    assert cache_url(header, "http") == url


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        ":5000",
        "cache:",
        "cache:0",
        "cache:65536",
        "cache:5000:1",
        "cache:\u0665",
        "\u212aache:5000",
        "cache/x",
        "cache:5000/x",
        "user@cache",
        "user:pass@cache:5000",
        "cache?x",
        "cache#x",
        "cache cache",
        "cache\n",
        "cache\r\nX: y",
        'cache"',
        "cache'",
        "cache;reboot",
        "$(reboot)",
        "`reboot`",
        "cache\\",
        "cache]",
        "<b>",
        "..",
        "cache.",
        ".cache",
        "-cache",
        "cache-",
        "ca\u0441he",
        "[::1",
        "::1",
        "[::1%25eth0]",
        "[::::]",
        "[1.2.3.4]",
        "a" * 64,
        ".".join(["a" * 60] * 5),
    ],
)
def test_a_host_header_that_is_no_address_is_refused_and_not_repeated(header: str | None) -> None:
    with pytest.raises(BadCacheUrl) as caught:
        cache_url(header, "http")
    assert not header or len(header) < 3 or header not in str(caught.value)


@pytest.mark.parametrize("scheme", ["", "ftp", "HTTP ", "javascript"])
def test_no_other_scheme_is_told(scheme: str) -> None:
    with pytest.raises(BadCacheUrl):
        cache_url("cache:5000", scheme)


@pytest.mark.parametrize(
    "url", ["cache:5000", "http://", "http:///x", "http://cache/x", "http://cache?ns=x", "//cache"]
)
def test_a_url_with_more_or_less_than_an_address_is_refused(url: str) -> None:
    with pytest.raises(BadCacheUrl):
        setup_text("dockerd", url, UPSTREAMS)


@pytest.mark.parametrize(
    ("url", "registry"),
    [
        ("http://cache:5000", "cache:5000"),
        ("http://cache", "cache:80"),
        ("https://cache", "cache:443"),
        ("https://cache.example", "cache.example"),
        ("http://localhost", "localhost"),
    ],
)
def test_as_part_of_an_image_name_the_address_is_never_taken_for_a_user(url: str, registry: str) -> None:
    assert CacheUrl.parse(url).registry == registry


# The clients


def test_an_unknown_client_is_told_the_known_ones() -> None:
    with pytest.raises(UnknownClient) as caught:
        setup_text("rm -rf", URL, UPSTREAMS)
    assert str(caught.value).endswith("known are: " + ", ".join(CLIENTS))
    assert "rm" not in str(caught.value)


def test_the_list_has_a_line_for_every_client() -> None:
    lines = clients_text().splitlines()
    assert [line.split()[0] for line in lines] == [
        "dockerd",
        "containerd",
        "podman",
        "buildkit",
        "k3s",
        "kind",
        "crio",
        "kaniko",
        "github-actions",
        "gitlab-runner",
    ]


@pytest.mark.parametrize("client", CLIENTS)
def test_the_text_shows_every_path_and_content_and_how_to_check(client: str) -> None:
    made, text = setup(client), setup_text(client, URL + "/", UPSTREAMS)
    assert text.startswith(f"{client} through the cache at {URL}\n")
    assert text.endswith("\n")
    for part in made.parts:
        assert (part.path or part.about) in text
        assert all(line in text for line in part.content.splitlines())
    assert f"Check:  {made.check}\n" in text
    assert text.isascii()


def test_only_clients_with_a_file_on_this_machine_can_be_written() -> None:
    by_hand = [client for client in CLIENTS if not setup(client).can_be_written]
    assert by_hand == ["kind", "kaniko", "github-actions", "gitlab-runner"]


def test_dockerd_has_a_mirror_for_docker_hub_and_hosts_toml_for_the_others() -> None:
    made = setup("dockerd")
    assert json.loads(files(made)["/etc/docker/daemon.json"]) == {"registry-mirrors": [URL]}
    assert list(files(made))[1:] == [
        "/etc/docker/certs.d/ghcr.io/hosts.toml",
        "/etc/docker/certs.d/registry.example:5000/hosts.toml",
    ]
    assert "insecure-registries" not in files(made)["/etc/docker/daemon.json"]
    assert "cache:5000/ghcr.io/OWNER/IMAGE" in " ".join(made.notes)


@pytest.mark.parametrize("upstreams", [("ghcr.io", "docker.io"), ("ghcr.io",)])
def test_dockerd_gets_no_mirror_where_the_root_of_the_cache_is_another_registry(upstreams: tuple[str, ...]) -> None:
    made = setup("dockerd", upstreams=upstreams)
    assert list(files(made)) == [f"/etc/docker/certs.d/{name}/hosts.toml" for name in upstreams]
    assert "registry-mirrors of daemon.json" in " ".join(made.notes)


def test_containerd_has_a_file_an_upstream_that_names_the_root_and_leaves_the_registry_as_the_last_resort() -> None:
    made = setup("containerd")
    assert list(files(made)) == [f"/etc/containerd/certs.d/{name}/hosts.toml" for name in UPSTREAMS]
    for path in files(made):
        assert toml(made, path) == {"host": {URL: {"capabilities": ["pull", "resolve"]}}}


@pytest.mark.parametrize("client", ["podman", "crio"])
@pytest.mark.parametrize("url", [URL, "https://cache:5000"])
def test_registries_conf_puts_the_upstream_into_the_path_and_allows_http_only_where_it_is_used(
    client: str, url: str
) -> None:
    made = setup(client, url)
    entries = toml(made, "/etc/containers/registries.conf.d/50-pullthrough.conf")["registry"]
    insecure = {"insecure": True} if url == URL else {}
    assert entries == [
        {"prefix": "docker.io", "location": "docker.io", "mirror": [{"location": "cache:5000", **insecure}]},
        {"prefix": "ghcr.io", "location": "ghcr.io", "mirror": [{"location": "cache:5000/ghcr.io", **insecure}]},
    ]
    assert "because of the port in the name: registry.example:5000." in " ".join(made.notes)


@pytest.mark.parametrize("url", [URL, "https://cache:5000"])
def test_buildkit_mirrors_every_upstream_at_the_root_and_allows_http_only_where_it_is_used(url: str) -> None:
    mirrors = {name: {"mirrors": ["cache:5000"]} for name in UPSTREAMS}
    insecure = {"cache:5000": {"http": True}} if url == URL else {}
    assert toml(setup("buildkit", url), "/etc/buildkit/buildkitd.toml") == {"registry": {**mirrors, **insecure}}


def test_k3s_has_an_endpoint_an_upstream() -> None:
    [content] = files(setup("k3s", upstreams=UPSTREAMS[1:])).values()
    assert content.partition("\n")[2] == (
        "mirrors:\n"
        '  "ghcr.io":\n    endpoint:\n      - "http://cache:5000"\n'
        '  "registry.example:5000":\n    endpoint:\n      - "http://cache:5000"\n'
    )


def test_kind_mounts_what_containerd_reads() -> None:
    made = setup("kind")
    assert (
        "hostPath: ./certs.d\n        containerPath: /etc/containerd/certs.d\n" in files(made)["kind-pullthrough.yaml"]
    )
    assert list(files(made))[1:] == [f"certs.d/{name}/hosts.toml" for name in UPSTREAMS]
    assert files(made)["certs.d/ghcr.io/hosts.toml"] == next(iter(files(setup("containerd")).values()))


def test_kaniko_has_a_flag_an_upstream_and_the_same_as_environment() -> None:
    flags, environment = (part.content.splitlines() for part in setup("kaniko").parts)
    assert flags == [
        "--registry-mirror=cache:5000",
        "--registry-map=ghcr.io=cache:5000/ghcr.io",
        "--insecure-registry=cache:5000",
    ]
    assert environment == ["KANIKO_REGISTRY_MIRROR=cache:5000", "KANIKO_REGISTRY_MAP=ghcr.io=cache:5000/ghcr.io"]
    assert "--insecure" not in setup("kaniko", "https://cache:5000").parts[0].content


def test_kaniko_finds_docker_hub_in_the_path_where_it_is_not_the_default() -> None:
    flags = setup("kaniko", upstreams=("ghcr.io", "docker.io")).parts[0].content
    assert flags.startswith("--registry-map=ghcr.io=cache:5000\n--registry-mirror=cache:5000/docker.io\n")


def test_a_gitlab_runner_starts_dind_with_the_mirror_and_tells_kaniko() -> None:
    document = toml(setup("gitlab-runner"), "/etc/gitlab-runner/config.toml")
    [runner] = document["runners"]
    assert runner["docker"]["services"] == [{"name": "docker:dind", "command": ["--registry-mirror", URL]}]
    assert runner["environment"] == [
        "KANIKO_REGISTRY_MIRROR=cache:5000",
        "KANIKO_REGISTRY_MAP=ghcr.io=cache:5000/ghcr.io",
    ]
    without = toml(setup("gitlab-runner", upstreams=("ghcr.io",)), "/etc/gitlab-runner/config.toml")
    assert "docker" not in without["runners"][0]


def test_github_actions_have_the_daemon_and_the_builder() -> None:
    [content] = files(setup("github-actions")).values()
    step, _, inline = content.partition("      buildkitd-config-inline: |\n")
    assert f"""jq '."registry-mirrors" = ["{URL}"] + ((."registry-mirrors" // []) - ["{URL}"])'""" in step
    assert all(line.startswith("        ") for line in inline.splitlines() if line)
    assert tomllib.loads(inline)["registry"]["ghcr.io"] == {"mirrors": ["cache:5000"]}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_loopback_address_is_said_to_be_right_in_one_place_only(client: str) -> None:
    assert "127.0.0.1" in " ".join(setup(client, "http://127.0.0.1:5000").notes)
    assert "127.0.0.1" not in " ".join(setup(client).notes)


@pytest.mark.parametrize("client", CLIENTS)
def test_https_needs_a_trusted_certificate_and_nothing_insecure(client: str) -> None:
    text = setup_text(client, "https://cache.example", UPSTREAMS)
    assert "must trust the certificate" in text
    assert "insecure = true" not in text
    assert "http = true" not in text
    assert "http://" not in text
