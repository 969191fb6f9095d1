"""A Debian system on a disk image: mmdebstrap installs it, disks.bootable makes the disk.

The packages come from the mirrors that this machine's apt uses (host-tools/setup/apt-state.sh), which checks their
signatures. Run by root, mmdebstrap installs as root; else in a user namespace or with fakechroot, whichever it finds
to work, and the files' owners are kept by fakeroot. `host-tools/setup/debian/` has what is changed in the system.
"""

import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from pcanel import programs
from pcanel.disks import bootable
from pcanel.errors import InputError, PcanelError
from pcanel.paths import BUILD, ROOT

SUITES = ("bookworm", "trixie")
KERNELS = {"cloud": "linux-image-cloud-amd64", "full": "linux-image-amd64"}
PACKAGES = ("systemd-sysv", "udev", "kmod", "iproute2", "iputils-ping", "wget", "ca-certificates", "nano")
_SETUP = ROOT / "host-tools/setup"
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_MIB = 1 << 20
_SPARE = 104 * _MIB  # EFI System Partition, journal, tables, and room to work
_SIZE_MOST = 64 << 30


def make(image: Path, name: str, suite: str, kernel: str, size: int | None, more: tuple[str, ...], say) -> None:
    """Writes `image`. size: bytes, None: what the system needs and a little more. more: packages. say(text) prints how
    far it is. Raises InputError, PcanelError."""
    if size is not None and not 256 * _MIB <= size <= _SIZE_MOST:
        raise InputError(f"--size {size >> 20}M: must be from 256M to 64G")
    if shutil.which("mmdebstrap") is None:
        raise PcanelError("mmdebstrap is missing (Debian: apt-get install mmdebstrap; make sets it up)")
    identity = str(uuid.uuid4())
    image.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=image.parent, prefix="debian-") as directory:
        work = Path(directory)
        archive = work / "root.tar"
        _install(archive, work, name, identity, suite, (KERNELS[kernel], *PACKAGES, *more), say)
        say(f"{archive.stat().st_size >> 20} MiB are installed; making the disk")
        least = -(-(archive.stat().st_size + _SPARE) // _MIB) * _MIB
        if size is not None and size < least:
            raise InputError(f"--size {size >> 20}M: the system needs {least >> 20}M")
        fresh = work / image.name
        _pack(fresh, archive, work / "tree", identity, size or least)
        fresh.replace(image)


def _install(archive: Path, work: Path, name: str, identity: str, suite: str, packages, say) -> None:
    """mmdebstrap: the system as a tar archive."""
    sources = work / "sources.list"
    sources.write_text(_sources(suite))
    command = ["mmdebstrap", "--variant=minbase", "--format=tar", f"--include={','.join(packages)}"]
    command += ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"']
    command += [f"--dpkgopt=path-exclude={path}" for path in _EXCLUDED]
    command += [f'--essential-hook={_SETUP}/debian/essential.sh "$1"']
    command += [f'--customize-hook={_SETUP}/debian/customize.sh "$1"']
    say(f"installing Debian {suite} by mmdebstrap: {' '.join(packages)}")
    log = work.parent / f"{name}.log"
    environment = {**os.environ, "PCANEL_NAME": name, "PCANEL_UUID": identity}
    with log.open("w") as file:
        done = programs.call(
            [*command, suite, str(archive), str(sources)], stdout=file, stderr=subprocess.STDOUT, env=environment
        )
    if done.returncode:
        errors = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("E: ")]
        raise PcanelError(f"mmdebstrap failed: {errors[-1][3:] if errors else 'see'} ({log})")
    log.unlink()


def _sources(suite: str) -> str:
    """The lines of sources.list for a suite, with the mirrors of this machine's apt."""
    state = BUILD / ("apt" if suite == "bookworm" else f"apt-{suite}")
    file = state / "sources.list"
    if not file.is_file():
        raise PcanelError(f"{file} is missing (make guests sets it up)")
    lines = [line for line in file.read_text().splitlines() if line.startswith("deb ")]
    return "\n".join(lines) + "\n"


def _pack(image: Path, archive: Path, tree: Path, identity: str, size: int) -> None:
    """The archive as a disk. All in one fakeroot where this is not root, so that it knows the owners."""
    prefix: tuple[str, ...] = ()
    if os.geteuid():
        if shutil.which("fakeroot") is None:
            raise PcanelError("fakeroot is missing (Debian: apt-get install fakeroot)")
        prefix = ("fakeroot", "-i", str(tree) + ".owners", "-s", str(tree) + ".owners")
        Path(str(tree) + ".owners").touch()
    tree.mkdir()
    programs.run([*prefix, "tar", "-x", "--numeric-owner", "--exclude=./dev/*", "-C", str(tree), "-f", str(archive)],
                 f"{archive}: could not be unpacked")  # fmt: skip
    archive.unlink()
    # Files without read permission cannot be copied either.
    programs.run([*prefix, "chmod", "-R", "u+rX", str(tree)], f"{tree}: chmod failed")
    bootable.make(image, tree, size, identity, prefix)
