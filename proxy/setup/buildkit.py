"""BuildKit as a daemon or as a builder of `docker buildx`, and the workflow steps that make such a builder."""

from __future__ import annotations

import json
from textwrap import indent
from typing import Final

from proxy.setup.dockerd import DAEMON_JSON
from proxy.setup.guide import MARK, Cache, Part, Setup, Way

_BUILDKITD_TOML: Final = "/etc/buildkit/buildkitd.toml"


def buildkit(cache: Cache) -> Setup:
    """It says `?ns=`, so that the root of the cache serves every upstream."""
    return Setup(
        client="buildkit",
        url=str(cache.url),
        parts=(Part(path=_BUILDKITD_TOML, content=f"{MARK}\n\n{_buildkitd_toml(cache)}", way=Way.REPLACE),),
        restart="systemctl restart buildkit",
        check=f"echo 'FROM {cache.example()}' | docker buildx build --pull --no-cache -",
        notes=(
            "For docker buildx, instead of the restart:"
            f" docker buildx create --use --name pullthrough --buildkitd-config {_BUILDKITD_TOML}",
            "`docker build` without a builder of its own uses what dockerd uses.",
            *_container_notes(cache),
            *cache.notes(_trust(cache)),
        ),
    )


def github_actions(cache: Cache) -> Setup:
    """Steps for the daemon of the runner and for a builder."""
    steps = ["steps:"]
    if cache.serves_hub_at_root:
        steps += [
            "  - name: Docker pulls through the cache",
            "    run: |",
            indent(_daemon_json_step(str(cache.url)), " " * 6),
        ]
    steps += [
        "  - name: Builds pull through the cache",
        "    uses: docker/setup-buildx-action@v3",
        "    with:",
        "      buildkitd-config-inline: |",
        indent(_buildkitd_toml(cache), " " * 8),
    ]
    about = "before the steps that pull or build"
    return Setup(
        client="github-actions",
        url=str(cache.url),
        parts=(Part(path=".github/workflows/<workflow>.yml", content="\n".join(steps), way=Way.BY_HAND, about=about),),
        restart=None,
        check="the workflow's first build, then `pullthrough status` where the cache runs",
        notes=(
            "The runner must reach the cache. Those that GitHub hosts are outside of your network.",
            *cache.notes(
                f"{_trust(cache)} Docker on the runner: put it into /etc/docker/certs.d/{cache.url.registry}/ before"
                " the restart.",
                elsewhere=True,
            ),
        ),
    )


def _trust(cache: Cache) -> str:
    lines = f'[registry.{json.dumps(cache.url.registry)}] and below it ca = ["/etc/buildkit/ca.crt"]'
    return f"add to buildkitd.toml {lines}; buildx takes the file into a builder that it makes."


def _container_notes(cache: Cache) -> list[str]:
    if not cache.url.is_loopback:
        return []
    return [f"A builder in a container has a {cache.url.host} of its own: add --driver-opt network=host"]


def _buildkitd_toml(cache: Cache) -> str:
    lines = []
    for name in cache.upstreams:
        lines += [f"[registry.{json.dumps(name)}]", f"  mirrors = [{json.dumps(cache.url.registry)}]", ""]
    if cache.url.is_plain:
        lines += [f"[registry.{json.dumps(cache.url.registry)}]", "  http = true", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _daemon_json_step(url: str) -> str:
    """The runner has a daemon.json already, whose other keys must stay."""
    ours = json.dumps([url])
    return "\n".join(
        [
            f"old=$(cat {DAEMON_JSON} 2>/dev/null || echo '{{}}')",
            # Into a variable first: a file that jq cannot read ends the step, and is left as it is.
            f"""new=$(echo "$old" | jq '."registry-mirrors" = {ours} + ((."registry-mirrors" // []) - {ours})')""",
            f"""echo "$new" | sudo tee {DAEMON_JSON}""",
            "sudo systemctl restart docker",
            "",
        ]
    )
