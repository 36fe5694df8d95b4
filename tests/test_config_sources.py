"""Where settings come from: environment over file; upstreams, and their credentials."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import (
    Address,
    ConfigError,
    Secret,
    UpstreamOptions,
    check_files,
    describe,
    load,
)
from tests.config_rig import refusal, upstream, write

HUB_TOKEN = {"DOCKERHUB_USERNAME": "alice", "DOCKERHUB_TOKEN": "dckr_pat_secret"}


# Environment


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[freshness]\ntags = '5m'\n[log]\nlevel = 'debug'\n")
    config = load(path, {"PULLTHROUGH_FRESHNESS__TAGS": "1m", "PULLTHROUGH_LOG__ACCESS": "false"})
    assert (config.freshness.tags, config.log.level, config.log.access) == (60.0, "debug", False)


def test_an_empty_variable_counts_as_unset() -> None:
    environ = {"DOCKERHUB_USERNAME": "", "DOCKERHUB_TOKEN": " ", "PULLTHROUGH_LOG__LEVEL": ""}
    assert load(None, environ).upstreams == (UpstreamOptions(),)


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("PULLTHROUGH_LOG__LEVLE", "PULLTHROUGH_LOG__LEVLE: no such setting; did you mean PULLTHROUGH_LOG__LEVEL?"),
        ("PULLTHROUGH_LOG_LEVEL", "PULLTHROUGH_LOG_LEVEL: no such setting; did you mean PULLTHROUGH_LOG__LEVEL?"),
        ("PULLTHROUGH_LOGS__LEVEL", "PULLTHROUGH_LOGS__LEVEL: no such setting; did you mean PULLTHROUGH_LOG__LEVEL?"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_one_that_was_meant(variable: str, said: str) -> None:
    assert refusal(None, {variable: "info"}) == said


def test_a_bad_value_of_a_variable_names_the_variable() -> None:
    said = refusal(None, {"PULLTHROUGH_FRESHNESS__TAGS": "soon"})
    assert said.startswith("PULLTHROUGH_FRESHNESS__TAGS is 'soon'; expected a duration")


@pytest.mark.parametrize(
    "variable",
    [
        "PULLTHROUGH_CONFIG",
        "PULLTHROUGH_SERVICE_HOST",
        "PULLTHROUGH_SERVICE_PORT_REGISTRY",
        "PULLTHROUGH_PORT",
        "PULLTHROUGH_PORT_5000_TCP_ADDR",
        "PULLTHROUGH_CACHE_SERVICE_HOST",
    ],
)
def test_variables_of_the_command_line_and_of_kubernetes_services_are_no_settings(variable: str) -> None:
    assert load(None, {variable: "tcp://10.0.0.1:5000"}).upstreams == (UpstreamOptions(),)


def test_names_of_registry_2_are_understood() -> None:
    config = load(
        None,
        {
            "REGISTRY_PROXY_REMOTEURL": "https://registry-1.docker.io",
            "REGISTRY_PROXY_USERNAME": "alice",
            "REGISTRY_PROXY_PASSWORD": "secret",
            "REGISTRY_HTTP_ADDR": ":5055",
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/data",
        },
    )
    assert config.server.listen == Address("", 5055)
    assert config.cache.directory == Path("/data")
    assert config.upstreams == (UpstreamOptions(username="alice", password=Secret("secret")),)


def test_our_variables_win_over_those_of_registry_2() -> None:
    environ = {"REGISTRY_HTTP_ADDR": ":1", "PULLTHROUGH_SERVER__LISTEN": ":2"}
    assert load(None, environ).server.listen == Address("", 2)


# Upstreams


@pytest.mark.parametrize(
    ("text", "name", "url"),
    [
        ("name = 'docker.io'", "docker.io", "https://registry-1.docker.io"),
        ("name = 'index.docker.io'", "docker.io", "https://registry-1.docker.io"),
        ("name = 'registry-1.docker.io'", "docker.io", "https://registry-1.docker.io"),
        ("name = 'ghcr.io'", "ghcr.io", "https://ghcr.io"),
        ("url = 'https://ghcr.io/'", "ghcr.io", "https://ghcr.io"),
        ("url = 'https://Registry-1.Docker.IO'", "docker.io", "https://registry-1.docker.io"),
        ("url = 'http://127.0.0.1:5055'", "127.0.0.1:5055", "http://127.0.0.1:5055"),
        ("name = 'docker.io'\nurl = 'http://127.0.0.1:5055'", "docker.io", "http://127.0.0.1:5055"),
        ("connect_timeout = 1", "docker.io", "https://registry-1.docker.io"),
    ],
)
def test_name_and_url_follow_from_each_other(tmp_path: Path, text: str, name: str, url: str) -> None:
    options = upstream({}, write(tmp_path, f"[[upstream]]\n{text}"))
    assert (options.name, options.url) == (name, url)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@host",
        "https://host/v2/",
        "https://host?token=hunter2",
        "https://host#hunter2",
        "https://host:0",
        "https://host:99999",
        "https://ho st",
        "https://",
        "host",
        "//host",
    ],
)
def test_a_url_is_scheme_and_host_alone_and_never_echoed_with_more(url: str) -> None:
    said = refusal(None, {"PULLTHROUGH_UPSTREAM__URL": url, "PULLTHROUGH_UPSTREAM__NAME": "host"})
    assert said.startswith("PULLTHROUGH_UPSTREAM__URL is ")
    assert "hunter2" not in said


def test_variables_for_upstream_speak_of_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "[[upstream]]\nname = 'docker.io'\n[[upstream]]\nname = 'ghcr.io'\n")
    first, second = load(path, {"PULLTHROUGH_UPSTREAM__IDLE_TIMEOUT": "5s"}).upstreams
    assert (first.name, first.idle_timeout, second.idle_timeout) == ("docker.io", 5.0, 60.0)


def test_two_upstreams_with_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "[[upstream]]\nname = 'docker.io'\n[[upstream]]\nname = 'index.docker.io'\n")
    assert refusal(path, {}) == "two upstreams are called docker.io; expected every name once"


# Credentials


def test_docker_hub_credentials_come_from_the_environment() -> None:
    options = upstream(HUB_TOKEN)
    assert options.username == "alice"
    assert options.password is not None
    assert options.password.reveal() == "dckr_pat_secret"


def test_docker_hub_credentials_go_to_docker_hub_wherever_it_stands(tmp_path: Path) -> None:
    path = write(tmp_path, "[[upstream]]\nname = 'ghcr.io'\n[[upstream]]\nname = 'docker.io'\n")
    first, second = load(path, HUB_TOKEN).upstreams
    assert (first.username, second.username) == (None, "alice")


def test_docker_hub_credentials_without_docker_hub_are_refused(tmp_path: Path) -> None:
    said = refusal(write(tmp_path, "[[upstream]]\nname = 'ghcr.io'\n"), HUB_TOKEN)
    assert said.startswith("DOCKERHUB_USERNAME is set, but no upstream is called docker.io")


def test_a_token_of_the_environment_replaces_the_file_s(tmp_path: Path) -> None:
    path = write(tmp_path, "[[upstream]]\nusername = 'bob'\npassword_file = '/old'\n")
    by_value = upstream({"DOCKERHUB_TOKEN": "new"}, path)
    assert (by_value.username, by_value.password, by_value.password_file) == ("bob", Secret("new"), None)

    by_file = upstream({"DOCKERHUB_TOKEN_FILE": "/new"}, path)
    assert (by_file.password, by_file.password_file) == (None, Path("/new"))

    ours = upstream({"PULLTHROUGH_UPSTREAM__PASSWORD": "new"}, path)
    assert (ours.password, ours.password_file) == (Secret("new"), None)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"DOCKERHUB_USERNAME": "alice"}, "DOCKERHUB_USERNAME is given without a password; expected also"),
        ({"DOCKERHUB_TOKEN": "hunter2"}, "DOCKERHUB_TOKEN is given without a username; expected both or none"),
        (HUB_TOKEN | {"DOCKERHUB_TOKEN_FILE": "/f"}, "DOCKERHUB_TOKEN and DOCKERHUB_TOKEN_FILE are both given"),
        ({"REGISTRY_PROXY_USERNAME": "alice"}, "REGISTRY_PROXY_USERNAME is given without a password"),
    ],
)
def test_half_a_pair_of_credentials_is_refused(environ: dict[str, str], said: str) -> None:
    assert refusal(None, environ).startswith(said)


def test_a_password_in_the_file_is_refused_with_the_way_to_give_it(tmp_path: Path) -> None:
    said = refusal(write(tmp_path, "[[upstream]]\nusername = 'bob'\npassword = 'hunter2'\n"), {})
    assert "password_file" in said
    assert "hunter2" not in said


def test_a_secret_shows_itself_only_when_asked() -> None:
    config = load(None, HUB_TOKEN)
    for text in (repr(config), str(config.upstreams[0].password), f"{config.upstreams}", str(describe(config))):
        assert "dckr_pat_secret" not in text


def test_a_secret_that_cannot_be_used_is_not_echoed() -> None:
    said = refusal(None, {"DOCKERHUB_USERNAME": "alice", "DOCKERHUB_TOKEN": "hunter2\nhunter3"})
    assert said == "DOCKERHUB_TOKEN is ***; expected a secret of printable text"


def test_a_password_file_that_is_missing_or_empty_is_found_at_the_start(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    config = load(None, {"DOCKERHUB_USERNAME": "alice", "DOCKERHUB_TOKEN_FILE": str(secret)})
    with pytest.raises(ConfigError, match=r"cannot read password_file of upstream docker\.io: No such file"):
        check_files(config)
    secret.write_text("\n")
    with pytest.raises(ConfigError, match=r"password_file of upstream docker\.io is empty"):
        check_files(config)
    secret.write_text("dckr_pat_secret\n")
    check_files(config)
