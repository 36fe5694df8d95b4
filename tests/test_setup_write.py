"""`pullthrough setup CLIENT --write`: what is on disk afterwards, and what is left alone."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.setup.write import below
from tests.cli_rig import Output, bare_environment

__all__ = ["bare_environment"]  # A fixture: used by its name.

URL = "http://cache:5000"
WHOLE_FILES = {
    "containerd": "etc/containerd/certs.d/docker.io/hosts.toml",
    "podman": "etc/containers/registries.conf.d/50-pullthrough.conf",
    "crio": "etc/containers/registries.conf.d/50-pullthrough.conf",
    "buildkit": "etc/buildkit/buildkitd.toml",
    "k3s": "etc/rancher/k3s/registries.yaml",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where `/` is."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def write(client: str, root: Path, *options: str, url: str = URL) -> int:
    return main(["setup", client, "--write", "--root", str(root), "--url", url, *options])


def daemon_json(root: Path, text: str) -> Path:
    path = root / "etc/docker/daemon.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def listing(root: Path) -> dict[str, tuple[str, int, int]]:
    """Every file with its content, inode and time."""
    return {
        str(path.relative_to(root)): (path.read_text(), path.stat().st_ino, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


# daemon.json


def test_a_new_file_can_be_read_by_all_whatever_the_umask(root: Path) -> None:
    umask = os.umask(0o077)
    try:
        assert write("dockerd", root) == 0
    finally:
        os.umask(umask)
    path = root / "etc/docker/daemon.json"
    assert json.loads(path.read_text()) == {"registry-mirrors": [URL]}
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o644, 0o755]
    assert list(path.parent.iterdir()) == [path]


def test_an_existing_one_keeps_its_other_keys_mode_and_owner_and_is_backed_up(root: Path, capsys: Output) -> None:
    before = '{\n    "registry-mirrors": ["https://other"],\n    "storage-driver": "overlay2"\n}\n'
    path = daemon_json(root, before)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    owner = (path.stat().st_uid, path.stat().st_gid)

    assert write("dockerd", root) == 0

    assert path.read_text() == before.replace('["https', f'["{URL}", "https')
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid, path.stat().st_gid) == (0o640, *owner)
    backup = path.with_name("daemon.json.before-pullthrough")
    assert backup.read_text() == before
    assert f"wrote {path} (the old one is {backup})\nThen:   systemctl reload docker\n" in capsys.readouterr().out


@pytest.mark.parametrize("client", ["dockerd", *WHOLE_FILES])
def test_the_second_time_nothing_is_touched(client: str, root: Path, capsys: Output) -> None:
    daemon_json(root, '{"debug": true}')
    write(client, root)
    before = listing(root)
    capsys.readouterr()
    assert write(client, root) == 0
    assert listing(root) == before
    told = capsys.readouterr().out
    assert told.startswith("already so: ")
    assert "Then:" not in told


def test_an_older_backup_is_never_overwritten(root: Path) -> None:
    path = daemon_json(root, '{"first": 1}')
    write("dockerd", root)
    path.write_text('{"second": 2}')
    write("dockerd", root)
    path.write_text('{"third": 3}')
    write("dockerd", root)
    backups = [path.with_name(f"daemon.json.before-pullthrough{end}").read_text() for end in ("", ".1", ".2")]
    assert backups == ['{"first": 1}', '{"second": 2}', '{"third": 3}']
    assert len(list(path.parent.iterdir())) == 4


@pytest.mark.parametrize(
    "content",
    [
        b'{\n  // why\n  "debug": true\n}',
        b'{"debug": true',
        b"[]",
        b'{"registry-mirrors": "https://other"}',
        b'{"label": "\xff"}',
    ],
)
def test_one_that_cannot_be_understood_is_left_alone(root: Path, capsys: Output, content: bytes) -> None:
    path = daemon_json(root, "")
    path.write_bytes(content)
    for options in ([], ["--force"]):
        assert write("dockerd", root, *options) == 1
        assert capsys.readouterr().err.startswith(f"pullthrough: {path} is left as it is: it")
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_what_is_no_file_is_left_alone(root: Path, capsys: Output) -> None:
    (root / "etc/docker").mkdir(parents=True)
    os.mkfifo(root / "etc/docker/daemon.json")
    assert write("dockerd", root) == 1
    assert "it is not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["../shared/docker.json", "/etc/shared/docker.json"])
def test_a_link_stays_a_link_and_its_target_below_the_root_changes(root: Path, target: str) -> None:
    real = root / "etc/shared/docker.json"
    real.parent.mkdir(parents=True)
    real.write_text('{"debug": true}')
    (root / "etc/docker").mkdir()
    link = root / "etc/docker/daemon.json"
    link.symlink_to(target)

    assert write("dockerd", root) == 0

    assert os.readlink(link) == target
    assert json.loads(real.read_text()) == {"debug": True, "registry-mirrors": [URL]}
    assert real.with_name("docker.json.before-pullthrough").read_text() == '{"debug": true}'


def test_a_failed_write_leaves_everything_as_it_was(
    root: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = daemon_json(root, '{"debug": true}')

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for call in ("fsync", "link", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"os.{call}", full)
            assert write("dockerd", root) == 1
        assert capsys.readouterr().err == f"pullthrough: cannot write {path}: No space left on device\n"
        assert path.read_text() == '{"debug": true}'
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("links", "path", "found"),
    [
        ({}, "/etc/docker/daemon.json", "etc/docker/daemon.json"),
        ({"etc": "usr/etc"}, "/etc/x", "usr/etc/x"),
        ({"etc": "/usr/etc", "usr": "/real"}, "/etc/x", "real/etc/x"),
        ({"x": "../../../../y"}, "/x", "y"),
        ({"x": "."}, "/x/x/x/y", "y"),
    ],
)
def test_no_link_leads_out_of_the_root(root: Path, links: dict[str, str], path: str, found: str) -> None:
    for name, target in links.items():
        (root / name).symlink_to(target)
    assert below(root, path) == root / found


def test_a_loop_of_links_is_told(root: Path, capsys: Output) -> None:
    (root / "etc").symlink_to("etc")
    assert write("dockerd", root) == 1
    assert "cannot read" in capsys.readouterr().err


# Whole files


@pytest.mark.parametrize(("client", "path"), WHOLE_FILES.items())
def test_our_own_file_is_replaced_with_a_backup(client: str, path: str, root: Path) -> None:
    write(client, root, url="http://old:5000")
    before = (root / path).read_text()
    assert write(client, root) == 0
    assert "old:5000" not in (root / path).read_text()
    assert Path(f"{root / path}.before-pullthrough").read_text() == before


@pytest.mark.parametrize(("client", "path"), WHOLE_FILES.items())
def test_a_file_of_somebody_else_is_refused_before_anything_is_written(
    client: str, path: str, root: Path, capsys: Output
) -> None:
    (root / path).parent.mkdir(parents=True)
    (root / path).write_text("# mine\n")
    before = listing(root)
    assert write(client, root) == 1
    assert listing(root) == before
    assert f"{root / path} is left as it is: it was not made by pullthrough; " in capsys.readouterr().err


@pytest.mark.parametrize(("client", "path"), WHOLE_FILES.items())
def test_force_replaces_it_with_a_backup_but_never_the_registries_of_k3s(client: str, path: str, root: Path) -> None:
    (root / path).parent.mkdir(parents=True)
    (root / path).write_text("# mine\n")
    assert write(client, root, "--force") == (1 if client == "k3s" else 0)
    kept = root / path if client == "k3s" else Path(f"{root / path}.before-pullthrough")
    assert kept.read_text() == "# mine\n"


def test_one_refused_file_of_many_keeps_all_from_being_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pullthrough.toml"
    config.write_text('[[upstream]]\nname = "docker.io"\n[[upstream]]\nname = "quay.io"\n')
    monkeypatch.setenv("PULLTHROUGH_CONFIG", str(config))
    theirs = root / "etc/containerd/certs.d/quay.io/hosts.toml"
    theirs.parent.mkdir(parents=True)
    theirs.write_text('server = "https://quay.io"\n')
    assert write("containerd", root) == 1
    assert [path for path in root.rglob("*") if path.is_file()] == [theirs]


def test_without_a_url_the_clients_of_this_machine_use_loopback(root: Path) -> None:
    assert main(["setup", "dockerd", "--write", "--root", str(root)]) == 0
    document = json.loads((root / "etc/docker/daemon.json").read_text())
    assert document == {"registry-mirrors": ["http://127.0.0.1:5000"]}


def test_what_was_written_as_json(root: Path, capsys: Output) -> None:
    path = daemon_json(root, "{}")
    write("dockerd", root, "--json")
    first = json.loads(capsys.readouterr().out)
    assert first["written"] == [{"path": str(path), "changed": True, "backup": f"{path}.before-pullthrough"}]
    write("dockerd", root, "--json")
    again = json.loads(capsys.readouterr().out)
    assert again["written"] == [{"path": str(path), "changed": False, "backup": None}]
