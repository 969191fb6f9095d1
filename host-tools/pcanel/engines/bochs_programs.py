"""The Bochs programs there are: 3.0 built for speed, 3.0 with its debugger, Debian's 2.7.

`host-tools/setup/bochs.sh` builds the first two under build/bochs. They have no display; without
a debugger there is no script to say "continue". Debian's is built with the debugger and opens one
of several displays.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pcanel.errors import EngineError
from pcanel.paths import BUILD

_OLD_MODELS = (
    "core2_penryn_t9600",
    "corei5_lynnfield_750",
    "corei5_arrandale_m520",
    "corei7_sandy_bridge_2600k",
    "corei7_ivy_bridge_3770k",
    "corei7_haswell_4770",
    "broadwell_ult",
    "corei7_skylake_x",
    "corei3_cnl",
    "corei7_icelake_u",
    "tigerlake",
    "ryzen",
)
_NEW_MODELS = (*_OLD_MODELS, "sapphire_rapids", "arrow_lake")
_LOOPBACK = BUILD / "loopback.so"  # host-tools/loopback
_NO_DISPLAY = "display_library: nogui\n"
_DEBIAN_DISPLAY = """\
display_library: rfb, options="timeout=0"
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
plugin_ctrl: speaker=0
"""


@dataclass(frozen=True)
class Program:
    """path: a file, or a name on PATH; debugger: what starts it with a script of that name, where it has
    one; config: the lines of bochsrc that this one needs; preload: a library that it is started with."""

    path: str
    words: str
    debugger: tuple[str, ...]
    cpus: tuple[str, ...]
    config: str
    preload: Path | None = None

    def environment(self, directory: Path) -> dict[str, str]:
        """Variables to start it with in `directory`, which gets a link to the library: the loader takes no path with
        spaces."""
        if self.preload is None:
            return {}
        if not self.preload.is_file():
            raise EngineError(f"{self.preload} is missing (make all builds it)")
        link = directory / self.preload.name
        if not link.is_symlink():
            link.symlink_to(self.preload)
        return {"LD_PRELOAD": f"./{link.name}"}

    @property
    def is_there(self) -> bool:
        return shutil.which(self.path) is not None

    def version(self) -> str:
        """Its version as it reports it, e.g. '3.0'; 'unknown' where it says nothing."""
        said = subprocess.run([self.path, "--help", "cpu"], capture_output=True, text=True, check=False)
        match = re.search(r"Bochs x86 Emulator (\S+)", said.stdout + said.stderr)
        return match[1] if match else "unknown"


FAST = Program(str(BUILD / "bochs/bochs"), "3.0, built for speed", debugger=(), cpus=_NEW_MODELS, config=_NO_DISPLAY)
DEBUGGER = Program(
    str(BUILD / "bochs/bochs-debugger"),
    "3.0 with its debugger",
    debugger=("-debugger", "-rc", "debugger"),
    cpus=_NEW_MODELS,
    config=_NO_DISPLAY,
)
DEBIAN = Program(
    "bochs",
    "2.7 of Debian; `make bochs` builds one that is 2.5 times as fast",
    debugger=("-rc", "debugger"),
    cpus=("bx_generic", *_OLD_MODELS),
    config=_DEBIAN_DISPLAY,
    preload=_LOOPBACK,  # the display's server is none of other machines' business
)


def first(programs: tuple[Program, ...]) -> Program:
    """The first that is there; the last where none is, so that its lack can be reported by name."""
    return next((program for program in programs if program.is_there), programs[-1])


def firmware(share: Path = Path("/usr/share/bochs")) -> tuple[Path, Path]:
    """The BIOS and the VGA BIOS, of Debian's packages."""
    return share / "BIOS-bochs-latest", share / "VGABIOS-lgpl-latest"
