"""The buses: who answers at which port and at which guest-physical address.

Only the bus knows addresses; a device sees offsets. Overlaps are refused. What nobody
claims reads as all ones, drops writes, and is counted in `unclaimed`.
"""

from micropython import const

from vmm import tally

_PORTS = const(0x10000)


class Overlap(ValueError):
    """Two devices want the same port or address."""


def _ones(size):
    return (1 << 8 * size) - 1


class PortBus:
    """I/O ports.

    claims {port: (read, write, base)}; devices {port: (device, base)}; misses {port << 1 | write: count}.
    """

    def __init__(self):
        self.claims = {}
        self.devices = {}
        self.misses = {}

    @property
    def unclaimed(self):
        """{(port, write): count}, and tally.OTHERS."""
        return {
            key if key == tally.OTHERS else (key >> 1, bool(key & 1)): count for key, count in self.misses.items()
        }

    def claim(self, base, count, device, offset=0):
        """Give device ports base .. base + count - 1, as its offsets offset .. offset + count - 1."""
        if base < 0 or base + count > _PORTS:
            raise ValueError("ports %#x+%d are out of range" % (base, count))
        for port in range(base, base + count):
            if port in self.claims:
                raise Overlap("port %#x is claimed already" % port)
        entry = (device.read, device.write, base - offset)
        for port in range(base, base + count):
            self.claims[port] = entry
        self.devices.update(dict.fromkeys(range(base, base + count), (device, base - offset)))

    def miss(self, port, write):
        key = port << 1 | write
        if key in self.misses:
            self.misses[key] += 1
        else:
            tally.count(self.misses, key)

    def read(self, port, size):
        """Return what IN of size 1, 2 or 4 bytes reads."""
        claim = self.claims.get(port)
        if claim is None:
            self.miss(port, False)
            return _ones(size)
        return claim[0](port - claim[2], size) & _ones(size)

    def write(self, port, size, value):
        claim = self.claims.get(port)
        if claim is None:
            self.miss(port, True)
        else:
            claim[1](port - claim[2], size, value & _ones(size))


class MmioBus:
    """Memory-mapped devices. regions [(base, end, device)] by base; unclaimed {page: count}."""

    def __init__(self):
        self.regions = []
        self.unclaimed = {}

    def claim(self, base, size, device):
        end = base + size
        for other, other_end, _ in self.regions:
            if base < other_end and other < end:
                raise Overlap("gpa %#x+%#x overlaps %#x" % (base, size, other))
        self.regions.append((base, end, device))
        self.regions.sort(key=lambda region: region[0])

    def release(self, device):
        """Take a device off the bus; returns its (base, size)."""
        for i, (base, end, other) in enumerate(self.regions):
            if other is device:
                del self.regions[i]
                return base, end - base
        raise ValueError("device is not on the bus")

    def find(self, gpa):
        """Return (base, device), or None."""
        for base, end, device in self.regions:
            if base <= gpa < end:
                return base, device
        return None

    def read(self, gpa, size):
        found = self.find(gpa)
        if found is None:
            tally.count(self.unclaimed, gpa & ~0xFFF)
            return _ones(size)
        return found[1].read(gpa - found[0], size) & _ones(size)

    def write(self, gpa, size, value):
        found = self.find(gpa)
        if found is None:
            tally.count(self.unclaimed, gpa & ~0xFFF)
        else:
            found[1].write(gpa - found[0], size, value & _ones(size))
