"""kaniko, which has flags and no file, and the runners of GitLab, whose file holds more than we can know."""

from __future__ import annotations

import json

from proxy.oci.names import DOCKER_HUB
from proxy.setup.guide import Cache, Part, Setup, Way


def kaniko(cache: Cache) -> Setup:
    """One flag an upstream."""
    flags = [
        f"--registry-mirror={place}" if name == DOCKER_HUB else f"--registry-map={name}={place}"
        for name, place in cache.places().items()
    ]
    flags += [_insecure_flag(cache)] if cache.url.is_plain else []
    variables = _kaniko_variables(cache)
    about = "the same as environment; --insecure-registry has none" if cache.url.is_plain else "the same as environment"
    return Setup(
        client="kaniko",
        url=str(cache.url),
        parts=(
            Part(
                path=None,
                content="".join(f"{each}\n" for each in flags),
                way=Way.BY_HAND,
                about="flags of the executor",
            ),
            Part(path=None, content="".join(f"{each}\n" for each in variables), way=Way.BY_HAND, about=about),
        ),
        restart=None,
        check="the build's log names the cache after `Retrieving image`",
        notes=(*_kaniko_notes(cache), *cache.notes(f"add {_certificate_flag(cache)}", elsewhere=True)),
    )


def gitlab_runner(cache: Cache) -> Setup:
    """For jobs with docker:dind as their service, and for kaniko."""
    variables = ", ".join(json.dumps(each) for each in _kaniko_variables(cache))
    lines = ["[[runners]]", f"  environment = [{variables}]"]
    if cache.serves_hub_at_root:
        lines += [
            "  [runners.docker]",
            "    [[runners.docker.services]]",
            '      name = "docker:dind"',
            f'      command = ["--registry-mirror", {json.dumps(str(cache.url))}]',
        ]
    notes = ["The images of the jobs are pulled by dockerd on the machine of the runner: set that up too (dockerd)."]
    if cache.serves_hub_at_root:
        notes.append(
            "The service is then there in every job; a job that names docker:dind itself needs the same command there."
        )
    if cache.url.is_plain:
        notes.append(f"Jobs with kaniko need its flag {_insecure_flag(cache)} too.")
    return Setup(
        client="gitlab-runner",
        url=str(cache.url),
        parts=(
            Part(
                path="/etc/gitlab-runner/config.toml",
                content="\n".join([*lines, ""]),
                way=Way.BY_HAND,
                about="keep what is there and add this to the runner that shall use the cache",
            ),
        ),
        restart="gitlab-runner restart",
        check="a job with `docker info`, which lists the cache below Registry Mirrors",
        notes=(*notes, *_kaniko_notes(cache), *cache.notes(_runner_trust(cache), elsewhere=True)),
    )


def _insecure_flag(cache: Cache) -> str:
    return f"--insecure-registry={cache.url.registry}"


def _certificate_flag(cache: Cache) -> str:
    return f"--registry-certificate={cache.url.registry}=/kaniko/ca.crt"


def _runner_trust(cache: Cache) -> str:
    folder = f"/etc/docker/certs.d/{cache.url.registry}"
    return (
        f'put its ca.crt into {folder}/ on the machine of the runner, add "{folder}:{folder}:ro" to volumes below'
        f" [runners.docker] for docker:dind, and give kaniko {_certificate_flag(cache)}"
    )


def _kaniko_variables(cache: Cache) -> list[str]:
    places = cache.places()
    maps = [f"{name}={place}" for name, place in places.items() if name != DOCKER_HUB]
    return [
        *([f"KANIKO_REGISTRY_MIRROR={places[DOCKER_HUB]}"] if DOCKER_HUB in places else []),
        *([f"KANIKO_REGISTRY_MAP={';'.join(maps)}"] if maps else []),
    ]


def _kaniko_notes(cache: Cache) -> list[str]:
    since = ["kaniko knows --registry-map with a path since 1.23."] if cache.upstreams != (DOCKER_HUB,) else []
    return [*since, *cache.unplaced_note()]
