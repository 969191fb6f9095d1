"""Where things are: the package is installed editable, so the tree is around it."""

import os
import stat
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
ELF = BUILD / "pcanel.elf"
ISO = BUILD / "pcanel.iso"

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


def lack_of(path: Path) -> str | None:
    """Why `path` cannot be read as a file, in words; None where it can."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    if stat.S_ISDIR(mode):
        return "is a directory"
    if not stat.S_ISREG(mode):
        return f"is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file"
    return None if os.access(path, os.R_OK) else "may not be read by this user"


def runs_directory() -> Path:
    """The directory that holds one directory for each run; $PCANEL_RUNS moves it."""
    return Path(os.environ.get("PCANEL_RUNS") or BUILD / "run")
