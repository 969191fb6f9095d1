"""`pcanel image`: makes disk images.

`pcanel image debian NAME` installs Debian on the disk build/images/NAME.img: systemd, GRUB, kernel and initrd of its
own; root logs in without a password. A guest file boots it with protocol = "bios" (guests/debian.toml).
"""

import argparse
import re
import time

from pcanel.commands.output import say
from pcanel.disks import debian
from pcanel.errors import InputError
from pcanel.paths import BUILD

_UNITS = {"M": 1 << 20, "G": 1 << 30}


def add_to(commands) -> None:
    parser = commands.add_parser("image", help="make a disk image", description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    one = kinds.add_parser("debian", help="a Debian system")
    one.add_argument("name", metavar="NAME", help="of the image, build/images/NAME.img, and of the machine")
    one.add_argument("--suite", choices=debian.SUITES, default="bookworm")
    one.add_argument("--kernel", choices=tuple(debian.KERNELS), default="cloud", help="cloud starts sooner")
    one.add_argument("--size", metavar="SIZE", help="of the disk, such as 2G (what is installed, and 96M)")
    one.add_argument("--include", metavar="PACKAGES", default="", help="more packages, separated by commas")
    parser.set_defaults(handler=_image)


def _image(options: argparse.Namespace) -> int:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", options.name):
        raise InputError(f"{options.name!r}: a machine's name is 1 to 31 small letters, digits, '-'")
    target = BUILD / "images" / f"{options.name}.img"
    more = tuple(word for word in options.include.split(",") if word)
    began = time.monotonic()
    debian.make(target, options.name, options.suite, options.kernel, _size(options.size), more, say)
    took = time.monotonic() - began
    print(f"{target}: Debian {options.suite}, {target.stat().st_size >> 20} MiB, made in {took:.0f} s")
    return 0


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)([MG])", text)
    if not match:
        raise InputError(f"--size {text}: must be a size such as 700M or 2G")
    return int(match[1]) * _UNITS[match[2]]
