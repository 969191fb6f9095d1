"""Words of the monitor's command line, and the memory that some of them ask for (port/memory.c)."""

import re

from pcanel.errors import InputError

_DEFAULTS = {"heap": 16 << 20, "exec": 8 << 20, "disk": 8 << 20}  # bytes
_WORDS = {"mitigations": ("auto", "off")}  # vmm/vtx/mitigations.py
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"(\d{1,12})([KMG]?)")


def check_option(word: str) -> None:
    """Raises InputError unless this is KEY=VALUE, and the value of a size is one."""
    if "=" not in word or any(c.isspace() for c in word):
        raise InputError(f"--option {word!r}: must be KEY=VALUE without spaces")
    key, _, value = word.partition("=")
    if key in _WORDS and value not in _WORDS[key]:
        raise InputError(f"--option {word!r}: must be one of {', '.join(_WORDS[key])}")
    if key in _DEFAULTS and not _SIZE.fullmatch(value):
        raise InputError(f"--option {word!r}: must be a size such as 16M")


def sizes(cmdline: str) -> int:
    """Bytes of the blocks whose sizes can be given, the defaults where they are not."""
    wanted = dict(_DEFAULTS)
    for word in cmdline.split():
        key, _, value = word.partition("=")
        size = _SIZE.fullmatch(value)
        if key in wanted and size:
            wanted[key] = int(size[1]) * _UNITS[size[2]]
    return sum(wanted.values())
