"""The buses: which device answers at which port and at which guest-physical address.

Only the bus knows addresses; a device sees offsets. Overlaps are refused. Unclaimed addresses read as all ones, drop
writes, and are counted in `unclaimed`.
"""

import micropython
from micropython import const

from vmm import tally

_PORTS = const(0x10000)


class Overlap(ValueError):
    """Two devices claim the same port or address."""


def _ones(size):
    return (1 << 8 * size) - 1


class PortBus:
    """I/O ports.

    A device takes accesses as wide as its claim says, at its own ports; the bus makes two halves of any other,
    the low one first, as chipsets do down to the bytes of an ISA chip.
    claims {port: (read, write, base, widest, end)}; ranges [(base, count, device, offset)]; misses
    {port << 1 | write: count}.
    """

    def __init__(self):
        self.claims = {}
        self.dwords = {}  # ports whose 4-byte accesses an absent device has
        self.ranges = []
        self.misses = {}

    @property
    def unclaimed(self):
        """{(port, write): count}, and tally.OTHERS."""
        return {key if key == tally.OTHERS else (key >> 1, bool(key & 1)): count for key, count in self.misses.items()}

    def claim(self, base, count, device, offset=0, widest=1):
        """Give device ports base .. base + count - 1, as its offsets offset .. offset + count - 1.

        widest: bytes of the widest access that it takes whole.
        """
        if base < 0 or base + count > _PORTS:
            raise ValueError("ports %#x+%d are out of range" % (base, count))
        for port in range(base, base + count):
            if port in self.claims:
                raise Overlap("port %#x is claimed already" % port)
        entry = (device.read, device.write, base - offset, widest, base + count)
        for port in range(base, base + count):
            self.claims[port] = entry
        self.ranges.append((base, count, device, offset))

    def release(self, device):
        """Take a device off the ports that it has; those of an absent device can be released too."""
        for base, count, other, _ in self.ranges:
            if other is device:
                for port in range(base, base + count):
                    del self.claims[port]
        self.ranges = [entry for entry in self.ranges if entry[2] is not device]

    def reserve_dword(self, port):
        """Keep a 4-byte access at `port` whole: an absent device has it. Narrower accesses are not affected."""
        self.dwords[port] = True

    def whole(self, port, size):
        """Whether an access of `size` bytes is one access to the device that has `port`."""
        claim = self.claims.get(port)
        return claim is not None and not self._splits(port, size, claim)

    def _splits(self, port, size, claim):
        """Whether an access of more than a byte is made in halves. claim: of its first port."""
        if size == 4 and port in self.dwords:
            return False
        if claim is not None and size > claim[3]:
            return True
        for at in range(port + 1, port + size):
            if self.claims.get(at) is not claim:
                return True
        return False

    # In bytecode 2,000.
    @micropython.viper
    def miss(self, port: int, write: int):
        """Count an access to the unclaimed port. write: 1, or 0."""
        table = self.misses
        key = port << 1 | write
        count = table.get(key)
        if count:
            table[key] = int(count) + 1
        else:
            tally.count(table, key)

    @micropython.viper
    def absent(self, port: int, size: int, write: int) -> int:
        """Whether an access of several bytes is to unclaimed ports alone: it is counted then, at each of them, or once
        where it stays whole."""
        claimed = self.claims.get
        end = port + size
        if size == 4 and self.dwords.get(port):
            end = port + 1
        at = port
        while at < end:
            if claimed(at):
                return 0
            at += 1
        table = self.misses
        known = table.get
        while port < end:
            key = port << 1 | write
            count = known(key)
            if count:
                table[key] = int(count) + 1
            else:
                tally.count(table, key)
            port += 1
        return 1

    def read(self, port, size):
        """IN of 1, 2 or 4 bytes; returns the value."""
        claim = self.claims.get(port)
        if size > 1 and self._splits(port, size, claim):
            if claim is None and self.absent(port, size, 0):
                return _ones(size)
            half = size // 2
            low = self.read(port, half)
            return low | self.read(port + half, half) << 8 * half
        if claim is None:
            self.miss(port, 0)
            return _ones(size)
        return claim[0](port - claim[2], size) & _ones(size)

    def write(self, port, size, value):
        """OUT of 1, 2 or 4 bytes."""
        claim = self.claims.get(port)
        if size > 1 and self._splits(port, size, claim):
            if claim is None and self.absent(port, size, 1):
                return
            half = size // 2
            self.write(port, half, value & _ones(half))
            self.write(port + half, half, value >> 8 * half)
        elif claim is None:
            self.miss(port, 1)
        else:
            claim[1](port - claim[2], size, value & _ones(size))


class MmioBus:
    """Memory-mapped devices. regions [(base, end, device)] by base; unclaimed {page: count}. changed() is called when a
    device has come or gone."""

    def __init__(self):
        self.changed = None
        self.regions = []
        self.unclaimed = {}

    def claim(self, base, size, device):
        end = base + size
        for other, other_end, _ in self.regions:
            if base < other_end and other < end:
                raise Overlap("gpa %#x+%#x overlaps %#x" % (base, size, other))
        self.regions.append((base, end, device))
        self.regions.sort(key=lambda region: region[0])
        self._change()

    def release(self, device):
        """Take a device off the bus; returns its (base, size)."""
        for i, (base, end, other) in enumerate(self.regions):
            if other is device:
                del self.regions[i]
                self._change()
                return base, end - base
        raise ValueError("device is not on the bus")

    def replace(self, other, base, size, device):
        """Put a device in the place of another one, of which it has at least all."""
        self.regions = [region for region in self.regions if region[2] is not other]
        self.claim(base, size, device)

    def together(self, work):
        """Call work(), in which devices come and go; changed() is called once, behind it."""
        changed, self.changed = self.changed, None
        try:
            work()
        finally:
            self.changed = changed
            self._change()

    def _change(self):
        if self.changed:
            self.changed()

    def find(self, gpa):
        """Return (base, device), or None."""
        for base, end, device in self.regions:
            if base <= gpa < end:
                return base, device
        return None

    @micropython.viper
    def miss(self, page: int):
        """Count an access to the unclaimed page at this gpa."""
        table = self.unclaimed
        count = table.get(page)
        if count:
            table[page] = int(count) + 1
        else:
            tally.count(table, page)

    def read(self, gpa, size):
        found = self.find(gpa)
        if found is None:
            self.miss(gpa & ~0xFFF)
            return _ones(size)
        return found[1].read(gpa - found[0], size) & _ones(size)

    def write(self, gpa, size, value):
        found = self.find(gpa)
        if found is None:
            self.miss(gpa & ~0xFFF)
        else:
            found[1].write(gpa - found[0], size, value & _ones(size))

    # Wider operands are split into accesses of `unit` bytes, the last ones narrower.

    def read_bytes(self, gpa, size, unit=8):
        """Read an operand wider than a device's registers; returns bytes."""
        out = b""
        while size:
            while unit > size:
                unit >>= 1
            out += self.read(gpa, unit).to_bytes(unit, "little")
            gpa += unit
            size -= unit
        return out

    def write_bytes(self, gpa, data, unit=8):
        """Write an operand wider than a device's registers."""
        at = 0
        while at < len(data):
            while unit > len(data) - at:
                unit >>= 1
            self.write(gpa + at, unit, int.from_bytes(data[at : at + unit], "little"))
            at += unit
