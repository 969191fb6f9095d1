"""The set-up scripts, with stand-ins for the programs that would change the machine."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / "host-tools/setup"


@pytest.fixture
def stand_in(tmp_path):
    """Puts programs before the real ones on PATH; `run` runs a set-up script with them."""
    directory = tmp_path / "bin"
    directory.mkdir()

    def make(name, body):
        path = directory / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def run(script, *arguments):
        return subprocess.run(
            [SETUP / script, *map(str, arguments)],
            env={"PATH": f"{directory}:/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    make.run = run
    return make


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def test_nothing_is_missing(stand_in):
    stand_in("dpkg-query", "printf installed")
    stand_in("apt-get", "exit 99")
    done = stand_in.run("packages.sh")
    assert done.returncode == 0, done.stderr
    assert "is installed" in done.stdout


def test_root_installs_what_is_missing(stand_in, log):
    stand_in("id", "echo 0")
    stand_in("dpkg-query", '[ "$4" = bochs ] || printf installed')
    stand_in("apt-get", f'echo "$@" >> {log}')
    done = stand_in.run("packages.sh")
    assert done.returncode == 0, done.stderr
    update, install = log.read_text().splitlines()
    assert update == "update"
    assert install.startswith("install ")
    assert install.endswith(" bochs")
    assert "installing Debian packages: bochs" in done.stdout


def test_a_user_installs_through_sudo(stand_in, log):
    stand_in("id", "echo 1000")
    stand_in("dpkg-query", "exit 1")
    stand_in("sudo", f'[ "$1" = -n ] || echo "$@" >> {log}')
    done = stand_in.run("packages.sh")
    assert done.returncode == 0, done.stderr
    assert log.read_text().splitlines()[0] == "apt-get update"


def test_without_rights_the_packages_are_listed(stand_in):
    stand_in("id", "echo 1000")
    stand_in("dpkg-query", "exit 1")
    stand_in("sudo", "exit 1")
    done = stand_in.run("packages.sh")
    assert done.returncode == 1
    for name in ("apt-get install", "bochs", "qemu-system-x86", "python3-venv"):
        assert name in done.stderr


def test_a_failed_installation_is_not_hidden(stand_in):
    stand_in("id", "echo 0")
    stand_in("dpkg-query", "exit 1")
    stand_in("apt-get", 'echo "E: no room" >&2; [ "$1" = update ]')
    done = stand_in.run("packages.sh")
    assert done.returncode != 0
    assert "E: no room" in done.stderr


def test_the_mirror_is_the_machines_own(stand_in, tmp_path):
    codename = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)[
        "VERSION_CODENAME"
    ].strip('"')
    uris = [
        f"'https://mirror.example/deb/dists/{codename}/InRelease' x 0",
        f"'https://mirror.example/deb/dists/{codename}-updates/InRelease' x 0",
        f"'https://security.example/dists/{codename}-security/InRelease' x 0",
        "'https://other.example/dists/nodistro/InRelease' x 0",
        f"'https://mirror.example/deb/dists/{codename}/main/binary-amd64/Packages.xz' x 0",
    ]
    stand_in("apt-get", 'case "$*" in *--print-uris*) cat <<END\n' + "\n".join(uris) + "\nEND\n;; esac")
    done = stand_in.run("apt-state.sh", tmp_path / "apt")
    assert done.returncode == 0, done.stderr
    lines = [line.split("] ", 1)[1] for line in (tmp_path / "apt/sources.list").read_text().splitlines()]
    assert lines == [
        f"https://mirror.example/deb {codename} main",
        f"https://mirror.example/deb {codename}-updates main",
        f"https://security.example {codename}-security main",
        "https://mirror.example/deb trixie main",
    ]


@pytest.mark.parametrize("user, gets_in, unsandboxed", [(0, True, False), (0, False, True), (1000, False, False)])
def test_who_fetches(stand_in, tmp_path, user, gets_in, unsandboxed):
    """Root's apt fetches as _apt, but where that one cannot get in; a user's apt as the user."""
    codename = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)[
        "VERSION_CODENAME"
    ].strip('"')
    uri = f"'https://mirror.example/deb/dists/{codename}/InRelease' x 0"
    stand_in("apt-get", f'case "$*" in *--print-uris*) echo "{uri}" ;; esac')
    stand_in("id", f"echo {user}")
    stand_in("setpriv", f"exit {0 if gets_in else 1}")
    done = stand_in.run("apt-state.sh", tmp_path / "apt")
    assert done.returncode == 0, done.stderr
    assert ("APT::Sandbox::User" in (tmp_path / "apt/apt.conf").read_text()) == unsandboxed
    assert ("fetches as root" in done.stderr) == unsandboxed


@pytest.mark.parametrize("user, owner", [(0, "_apt"), (1000, None)])
def test_whose_the_directory_of_a_download_is(stand_in, log, tmp_path, user, owner):
    stand_in("id", f"echo {user}")
    stand_in("chown", f'echo "$@" >> {log}')
    place = tmp_path / "place"
    place.mkdir()
    (place / "left.deb").write_text("from before")
    assert stand_in.run("apt-directory.sh", place).returncode == 0
    assert list(place.iterdir()) == []
    assert (log.read_text().split() if log.exists() else []) == ([owner, str(place)] if owner else [])


def test_every_package_is_locked():
    project = tomllib.loads((SETUP.parent / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["test"]]
    wanted += project["build-system"]["requires"]
    locked = re.findall(
        r"^([a-z0-9-]+)==\S+ \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
        (SETUP / "requirements.txt").read_text(),
        re.MULTILINE,
    )
    names = {name for name, _ in locked}
    assert {re.sub(r"[._]", "-", re.match(r"[A-Za-z0-9._-]+", word)[0]) for word in wanted} <= names
    assert len(names) == (SETUP / "requirements.txt").read_text().count("==")


def test_no_mirror(stand_in, tmp_path):
    stand_in("apt-get", "true")
    done = stand_in.run("apt-state.sh", tmp_path / "apt")
    assert done.returncode == 1
    assert "no mirror" in done.stderr


def test_a_tarball_that_is_another_is_refused(stand_in, tmp_path):
    (tmp_path / "apt").mkdir()
    stand_in("apt-get", "echo wrong > micropython_1.25.0+ds.orig.tar.xz")
    done = stand_in.run("micropython.sh", tmp_path / "apt", tmp_path / "micropython")
    assert done.returncode != 0
    assert "FAILED" in done.stdout
    assert not (tmp_path / "micropython").exists()


def test_another_source_of_bochs_is_refused(stand_in, tmp_path):
    (tmp_path / "apt").mkdir()
    stand_in("apt-get", "echo wrong > bochs_3.0+dfsg.orig.tar.xz")
    done = stand_in.run("bochs.sh", tmp_path / "apt", tmp_path / "bochs")
    assert done.returncode == 1
    assert "is not the one that is pinned" in done.stderr
    assert not list((tmp_path / "bochs/download").iterdir())
    assert not (tmp_path / "bochs/bochs").exists()


def test_without_the_source_of_bochs_another_engine_is_named(stand_in, tmp_path):
    (tmp_path / "apt").mkdir()
    stand_in("apt-get", "echo 'E: 404' >&2; exit 100")
    done = stand_in.run("bochs.sh", tmp_path / "apt", tmp_path / "bochs")
    assert done.returncode == 1
    assert "E: 404" in done.stderr
    assert "ENGINE=bochs27" in done.stderr


def test_no_python(stand_in, tmp_path):
    stand_in("python3", "exit 1")
    script = tmp_path / "setup/venv.sh"
    script.parent.mkdir()
    script.write_text((SETUP / "venv.sh").read_text().replace("/usr/bin/python3", "/none/python3"))
    script.chmod(0o755)
    done = stand_in.run(script, tmp_path / "venv")
    assert done.returncode == 1
    assert "python3-venv" in done.stderr
