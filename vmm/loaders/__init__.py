"""Loaders: they copy a guest's boot modules into its memory and give its vCPU's initial registers.

Every loader has load(memory, config, blobs, e820, rsdp) -> State and raises
LoadError. `config` is the guest's JSON. A guest with firmware of its own has no loader: vmm/firmware.py.
"""

from vmm.description import FIRMWARE
from vmm.loaders.state import LoadError, State

__all__ = ("LoadError", "State", "load")


def load(memory, config, blobs, e820, rsdp=0):
    """Loads by config['protocol']; the State. None for firmware: the vCPU is as after a reset. Raises LoadError."""
    protocol = config.get("protocol", "linux")
    if protocol in FIRMWARE:
        return None
    if protocol == "linux":
        from vmm.loaders import linux as loader
    elif protocol == "multiboot":
        from vmm.loaders import multiboot as loader
    elif protocol == "pvh":
        from vmm.loaders import pvh as loader
    elif protocol == "flat":
        from vmm.loaders import flat as loader
    else:
        raise LoadError("%s: boot protocol %s is unknown" % (config.get("name"), protocol))
    return loader.load(memory, config, blobs, e820, rsdp)
