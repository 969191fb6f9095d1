"""The characters typed at a guest's terminals: consoles, serial lines, pseudo-terminals.

    from vmm.recipes import keys
    k = keys.log(vms['linux'])             # tty="ttyS0": of one
    k                                      # what was typed, by terminal; k.stop()

All input of Linux's terminals passes the function tty_ldisc_receive_buf (drivers/tty/tty_buffer.c), passwords too.
"""

from micropython import const

from vmm.policies.events.call import CALL

MOST = const(4096)  # bytes of a terminal
_TERMINALS = const(64)
_FUNCTION = "tty_ldisc_receive_buf"


class Keys:
    """typed: {terminal: the last MOST bytes}."""

    def __init__(self, vm, tty):
        if not (tty is None or isinstance(tty, str) and tty):
            raise ValueError("tty=%r: a terminal's name, such as 'ttyS0'" % (tty,))
        self.typed = {}
        self._tty = tty
        self._vm = vm
        for name in ("struct tty_ldisc", "struct tty_struct"):
            vm.type(name)  # the first look-up is slow: here, not while the guest waits in a call
        self.policy = vm.on(CALL, at=_FUNCTION)(self._received)

    def _received(self, vcpu):
        discipline, start, _, count = vcpu.args[:4]
        name = self._vm.object("struct tty_ldisc", discipline).tty.name
        if self._tty in (None, name) and (name in self.typed or len(self.typed) < _TERMINALS):
            data = vcpu.peek(start, min(count & 0xFFFFFFFF, MOST))
            self.typed[name] = (self.typed.get(name, b"") + data)[-MOST:]

    def stop(self):
        """Record no longer; what was typed stays."""
        self.policy.detach()

    def __repr__(self):
        lines = ["%s: %r" % (name, str(data, "utf-8", "replace")) for name, data in sorted(self.typed.items())]
        return "\n".join(lines) or "nothing typed yet"


def log(vm, tty=None):
    """Record what is typed from now on; returns the Keys."""
    return Keys(vm, tty)
