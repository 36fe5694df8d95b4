"""The settings of the webhook, what is said of those that cannot be used, and `pullthrough webhook test`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import main
from proxy.config import ConfigError, Secret, WebhookOptions, check_files, load
from tests.cli_rig import Output, bare_environment
from tests.config_rig import refusal, write

__all__ = ["bare_environment"]  # A fixture: used by its name.

SECRET = "T0sEcReT"
URL = f"https://hooks.slack.com/services/{SECRET}"


def webhook(folder: Path, text: str, **environ: str) -> WebhookOptions:
    return load(write(folder, f"[webhook]\n{text}"), environ).webhook


def test_it_is_off_until_there_is_a_url(tmp_path: Path) -> None:
    assert not load(None, {}).webhook.enabled
    assert not webhook(tmp_path, "format = 'slack'").enabled
    assert webhook(tmp_path, f"url = '{URL}'") == WebhookOptions(url=Secret(URL))
    assert webhook(tmp_path, "url_file = '/run/url'").enabled


def test_the_environment_replaces_the_file_whichever_way_that_gives_it(tmp_path: Path) -> None:
    given = webhook(tmp_path, "url_file = '/run/url'", PULLTHROUGH_WEBHOOK__URL=URL)
    assert (given.url, given.url_file) == (Secret(URL), None)
    given = webhook(tmp_path, f"url = '{URL}'", PULLTHROUGH_WEBHOOK__URL_FILE="/run/url")
    assert (given.url, given.url_file) == (None, Path("/run/url"))


def test_alerts_are_ignored_by_a_list_or_by_text(tmp_path: Path) -> None:
    names = ("PullQuotaLow", "ImageVanishedUpstream")
    assert webhook(tmp_path, f"ignore = {json.dumps(names)}").ignore == names
    assert webhook(tmp_path, "", PULLTHROUGH_WEBHOOK__IGNORE="PullQuotaLow, ImageVanishedUpstream").ignore == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"url = '{URL}'\nurl_file = '/x'", "webhook.url and webhook.url_file are both given; expected one of them"),
        (
            "ignore = ['PullQuotaLo']",
            "webhook.ignore is ['PullQuotaLo']; expected a list of names of alerts, which are ",
        ),
        ("ignore = ['PullthroughDown']", "webhook.ignore is ['PullthroughDown']; expected a list of names of alerts"),
        ("ignore = 5", "webhook.ignore is 5; expected a list of names of alerts"),
        ("format = 'teams'", 'webhook.format is \'teams\'; expected "json" or "slack"'),
        ("repeat = 'often'", "webhook.repeat is 'often'; expected a duration"),
        ("urls = 'x'", "webhook.urls: no such setting; did you mean url?"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert refusal(write(tmp_path, f"[webhook]\n{text}"), {}).startswith(said)


@pytest.mark.parametrize(
    "url",
    [
        *(f"ftp://x/{SECRET}", f"hooks.slack.com/{SECRET}", f"https:///{SECRET}", f"https://x/{SECRET} y", f"{SECRET}"),
        *(
            f"https://x:0/{SECRET}",
            f"https://x:99999/{SECRET}",
            f"https://a b/{SECRET}",
            f"https://x/{SECRET}\u00e9",
            "",
        ),
    ],
)
def test_what_is_no_url_is_refused_and_not_shown(tmp_path: Path, url: str) -> None:
    said = refusal(write(tmp_path, f"[webhook]\nurl = {json.dumps(url)}"), {})
    assert said == 'webhook.url is not shown, as it is a secret; expected "https://host/path"'

    (tmp_path / "url").write_text(url or " ")
    config = load(write(tmp_path, f"[webhook]\nurl_file = '{tmp_path / 'url'}'"), {})
    with pytest.raises(ConfigError) as refused:
        check_files(config)
    assert SECRET not in str(refused.value)
    assert str(tmp_path / "url") in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = load(write(tmp_path, "[webhook]\nurl_file = '/nowhere/url'"), {})
    with pytest.raises(ConfigError, match=r"^cannot read webhook.url_file: No such file or directory: /nowhere/url$"):
        check_files(config)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_check_config_says_that_there_is_a_url_and_not_which(capsys: Output, tmp_path: Path, flags: list[str]) -> None:
    path = write(tmp_path, f"[webhook]\nurl = '{URL}'")
    assert main(["check-config", "--config", str(path), *flags]) == 0
    shown = capsys.readouterr().out
    assert SECRET not in shown and "hooks.slack.com" not in shown
    if flags:
        assert json.loads(shown)["webhook"]["url"] == "***"
    else:
        assert "\n# url: given, and not shown\n" in shown
        path.write_text(shown)
        assert not load(path, {}).webhook.enabled


# pullthrough webhook test


@contextmanager
def receiver(status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """Where messages arrive, and those that did."""
    messages: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/services/{SECRET}", messages
        server.shutdown()
        thread.join()


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> Any:
    """The command with a webhook at a URL: its exit code and what it has printed."""

    def run(url: str, **settings: str) -> tuple[int, str, str]:
        for key, value in {"URL": url, **settings}.items():
            monkeypatch.setenv(f"PULLTHROUGH_WEBHOOK__{key}", value)
        return (main(["webhook", "test"]), *capsys.readouterr())

    return run


def test_a_test_arrives_and_is_over(tried: Any) -> None:
    with receiver() as (url, messages):
        code, out, err = tried(url)
    assert (code, err) == (0, "")
    assert out == ("sent as json, firing: 127.0.0.1 answered 200\nsent as json, resolved: 127.0.0.1 answered 200\n")
    assert [message["status"] for message in messages] == ["firing", "resolved"]
    assert {message["commonLabels"]["alertname"] for message in messages} == {"PullthroughTest"}


def test_a_test_for_slack(tried: Any) -> None:
    with receiver() as (url, messages):
        assert tried(url, FORMAT="slack")[0] == 0
    assert "this is a test: nothing is wrong" in messages[0]["text"]


def test_a_test_that_does_not_arrive_exits_with_1(tried: Any) -> None:
    with receiver(404) as (url, messages):
        assert tried(url) == (1, "", "pullthrough: the test did not arrive: 127.0.0.1 answered 404\n")
    assert len(messages) == 1


def test_a_test_without_a_webhook_exits_with_2(capsys: Output) -> None:
    assert main(["webhook", "test"]) == 2
    assert capsys.readouterr().err.startswith("pullthrough: no webhook is configured; expected webhook.url, ")
    with pytest.raises(SystemExit) as caught:
        main(["webhook"])
    assert caught.value.code == 2
