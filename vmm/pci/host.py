"""Configuration mechanism 1, and bus 0 behind it. Source: PCI Local Bus Specification 3.0, "Software Generation of
Configuration Transactions"."""

from micropython import const

from vmm.devices.pci_header import CONFIG_ADDRESS, CONFIG_DATA, CONFIG_ENABLE, INTERRUPT_LINE, INTERRUPT_PIN
from vmm.pci import ecam

_WRITABLE = const(0x80FFFFFC)
_DEVICES = const(32)
_FUNCTIONS = const(8)  # of a device


class Host:
    """Bus 0 of a guest: functions by their address (device << 3 | function).

    ports, memory: its buses; line(n): a new source on interrupt line n; lines: of PIRQA to PIRQD; deliver(low,
    destination) sends a message to the local APICs; ecam_at: gpa of configuration space; refused(what) counts;
    say(text) prints a line for the user.
    """

    def __init__(self, ports, memory, line, lines, deliver, ecam_at, refused, say):
        self._ports = ports
        self._memory = memory
        self._line = line
        self._lines = lines
        self.deliver = deliver
        self.refused = refused
        self._say = say
        self._told = set()  # addresses of functions whose overlap has been reported since the last reset
        self.functions = {}
        self.address = 0
        self.data = Data(self)
        ports.claim(CONFIG_ADDRESS, 1, self, widest=4)
        ports.reserve_dword(CONFIG_ADDRESS)  # no part of a dword access goes to the register at CF9h
        ports.claim(CONFIG_DATA, 4, self.data, widest=4)
        self._ecam_at = ecam_at

    def add(self, function, device, number=0):
        """Add a function. ValueError if the address is taken, or not on the bus."""
        if not 0 <= device < _DEVICES or not 0 <= number < _FUNCTIONS:
            raise ValueError("PCI devices have numbers below %d, functions below %d" % (_DEVICES, _FUNCTIONS))
        address = device << 3 | number
        if address in self.functions:
            raise ValueError("there is a PCI device at 00:%02x.%d already" % (device, number))
        function.board = self
        function.address = address
        if not [at for at in self.functions if at >> 3 == device]:
            self._memory.claim(self._ecam_at + device * ecam.SIZE, ecam.SIZE, ecam.Ecam(self.functions, device))
        pin = function.config[INTERRUPT_PIN]
        if pin:
            n = self._lines[(pin - 1 + device - 1) & 3]
            function.irq = self._line(n)
            function.config[INTERRUPT_LINE] = n
        self.functions[address] = function
        function.reset()

    def free(self):
        """The lowest free device number from 2 on. ValueError if there is none."""
        for device in range(2, _DEVICES):
            if device << 3 not in self.functions:
                return device
        raise ValueError("all %d places of the PCI bus are taken" % _DEVICES)

    def reset(self):
        self.address = 0
        self._told.clear()
        for function in self.functions.values():
            function.reset()

    # CONFIG_ADDRESS, for accesses of a dword only.

    def read(self, offset, size):
        return self.address if size == 4 else 0xFFFFFFFF

    def write(self, offset, size, value):
        if size == 4:
            self.address = value & _WRITABLE

    def target(self, offset):
        """(function that CONFIG_ADDRESS selects, or None; offset in its configuration space)."""
        address = self.address
        if not address & CONFIG_ENABLE or address >> 16 & 0xFF:
            return None, 0
        return self.functions.get(address >> 8 & 0xFF), (address & 0xFC) + offset

    # For BARs.

    def claim(self, kind, at, size, device):
        if kind == "io":
            self._ports.claim(at, size, device, widest=4)
        else:
            self._memory.claim(at, size, device)

    def overlaps(self, function, error):
        """A BAR's address is taken, so the BAR is off. error: of the bus."""
        self.refused("BAR at an address that is taken")
        if function.address not in self._told:
            self._told.add(function.address)
            self._say("a BAR of PCI device %s is at an address that is taken: %s" % (_name(function), error))

    def release(self, kind, device):
        (self._ports if kind == "io" else self._memory).release(device)

    def together(self, work):
        """Call work(), which moves several BARs, as one change of the memory bus."""
        self._memory.together(work)

    # -- state as data

    def save(self):
        """Plain data, including that of all functions."""
        return {"address": self.address, "functions": {at: function.save() for at, function in self.functions.items()}}

    def check(self, saved):
        """ValueError unless the saved state has the same functions."""
        if sorted(saved["functions"]) != sorted(self.functions):
            raise ValueError("the saved state is of other PCI devices")

    def load(self, saved):
        self.check(saved)
        self.reset()  # a BAR's new address may be another's old one
        self.address = saved["address"]
        for at, state in saved["functions"].items():
            self.functions[at].load(state)

    def resume(self):
        """Function.resume() of all functions."""
        for function in self.functions.values():
            function.resume()

    def __repr__(self):
        rows = []
        for _, function in sorted(self.functions.items()):
            rows.append("%s %04x:%04x" % (_name(function), function.read(0, 2), function.read(2, 2)))
        return "\n".join(rows)


def _name(function):
    """Bus, device and function in lspci's notation."""
    return "00:%02x.%d" % (function.address >> 3, function.address & 7)


class Data:
    """CONFIG_DATA."""

    def __init__(self, host):
        self._host = host

    def read(self, offset, size):
        function, at = self._host.target(offset)
        return function.read(at, size) if function else (1 << 8 * size) - 1

    def write(self, offset, size, value):
        function, at = self._host.target(offset)
        if function:
            function.write(at, size, value)
