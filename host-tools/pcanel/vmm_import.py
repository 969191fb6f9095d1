"""The monitor's own modules on this machine: `vmm` imports on CPython where it touches no hardware."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from pcanel.paths import ROOT


@contextmanager
def importable() -> Iterator[None]:
    """Within it `vmm` can be imported: there is a stand-in for MicroPython's module `micropython`."""
    added = "micropython" not in sys.modules
    if added:
        stand_in = ModuleType("micropython")
        stand_in.const = lambda value: value
        stand_in.viper = lambda function: function
        sys.modules["micropython"] = stand_in
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    try:
        yield
    finally:
        if added:
            del sys.modules["micropython"]
