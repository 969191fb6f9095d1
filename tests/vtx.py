"""Which engine runs tests with guests: $PCANEL_ENGINE (`make test ENGINE=...`), and nobody else decides.

auto is what `pcanel run` would take. Tests that are about one engine name it themselves.
"""

import os

from pcanel.engines.choose import choose
from pcanel.engines.host import nested_vmx
from pcanel.errors import InputError


def unusable() -> str | None:
    """One line that says why the engine asked for cannot run guests, or None."""
    name = os.environ.get("PCANEL_ENGINE", "auto")
    try:
        choose(name)
    except InputError as error:
        return f"ENGINE={name}: {str(error).partition(': ')[2]}"
    host = nested_vmx()
    if name == "qemu" and not host.usable:
        return f"ENGINE=qemu: no guest can run: {host.reason}" + (f"; {host.mend}" if host.mend else "")
    return None


def engine() -> str:
    """'bochs', 'bochs27' or 'qemu' for a Monitor with guests."""
    return choose(os.environ.get("PCANEL_ENGINE", "auto")).engine.name


def cpu(model: str | None) -> str | None:
    """A CPU model of Bochs; QEMU has the host's own CPU."""
    return model if engine() in ("bochs", "bochs27") else None
