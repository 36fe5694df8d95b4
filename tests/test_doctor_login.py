"""`doctor` at registries that ask for logins in other ways than Docker Hub does."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from proxy.config import CacheOptions, Config, Secret, UpstreamOptions
from proxy.doctor.findings import State
from tests.doctor_rig import Findings, case_of, findings, wrong

PASSWORD = "of-registry-example"
RIGHT = "Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
JSON = {"Content-Type": "application/json"}
Answer = Callable[[web.BaseRequest], web.Response]


def basic(request: web.BaseRequest) -> web.Response:
    """A registry behind a password."""
    if request.headers.get("Authorization") == RIGHT:
        return web.json_response({})
    return web.json_response({}, status=401, headers={"WWW-Authenticate": 'Basic realm="registry"'})


def no_anonymous_token(request: web.BaseRequest) -> web.Response:
    """A registry whose token server wants to know the repository."""
    if request.path == "/token":
        return web.json_response({}, status=403)
    realm = f'Bearer realm="http://{request.host}/token",service="registry.example"'
    return web.json_response({}, status=401, headers={"WWW-Authenticate": realm})


def token_that_is_none(request: web.BaseRequest) -> web.Response:
    """A token server behind the page of a login."""
    if request.path == "/token":
        return web.Response(text="<html>")
    return no_anonymous_token(request)


def open_to_all(_: web.BaseRequest) -> web.Response:
    return web.json_response({})


@asynccontextmanager
async def registry(answer: Answer) -> AsyncIterator[str]:
    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        return answer(request)

    runner = web.ServerRunner(web.Server(serve, access_log=None), shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "http://{}:{}".format(*runner.addresses[0])
    finally:
        await runner.cleanup()


async def look(answer: Answer, folder: Path, password: str | None = None) -> Findings:
    """The findings about such a registry, asked with an account if there is a password."""
    async with registry(answer) as url:
        account = {"username": "ann", "password": Secret(password)} if password else {}
        options = UpstreamOptions(name="registry.example", url=url, **account)  # type: ignore[arg-type]
        config = Config(cache=CacheOptions(directory=folder), upstreams=(options,))
        found = await findings(case_of(config, None, canary=None))
    return {name.removeprefix("registry.example "): finding for name, finding in found.items()}


async def test_a_password_that_the_registry_itself_asks_for_is_tried(tmp_path: Path) -> None:
    found = await look(basic, tmp_path, PASSWORD)
    assert found["challenge"].text == "wants a user name and password (Basic)"
    assert found["login"].text == "logged in as ann"
    assert found["scope"].state is State.OK


@pytest.mark.parametrize(
    ("password", "text"), [("wrong", "the username ann or its access token is wrong"), (None, "wants a login")]
)
async def test_a_password_that_is_wrong_or_missing_is_named(tmp_path: Path, password: str | None, text: str) -> None:
    found = await look(basic, tmp_path, password)
    assert text in wrong(found)["login"]
    assert found["scope"].text == "not reached: see above"


async def test_a_registry_without_logins_is_well(tmp_path: Path) -> None:
    found = await look(open_to_all, tmp_path)
    assert (found["challenge"].text, found["login"].text) == ("open: no login is asked for", "none is asked for")
    assert found["scope"].state is State.OK


async def test_a_token_server_that_wants_a_repository_is_no_failure(tmp_path: Path) -> None:
    found = await look(no_anonymous_token, tmp_path)
    assert found["login"].text == "no token without naming a repository"
    assert found["login"].state is found["scope"].state is State.SKIPPED


async def test_a_token_server_that_refuses_an_account_is_named(tmp_path: Path) -> None:
    found = await look(no_anonymous_token, tmp_path, PASSWORD)
    assert wrong(found)["login"] == "the username ann or its access token is wrong"
    assert PASSWORD not in str(found)


async def test_an_answer_in_the_token_server_s_place_is_named(tmp_path: Path) -> None:
    found = await look(token_that_is_none, tmp_path, PASSWORD)
    assert wrong(found)["login"] == "the token server answered without a token"
