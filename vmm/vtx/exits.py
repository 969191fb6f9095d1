"""The exit loop and its table: what happens when a guest comes back to the monitor.

`vmx.enter` runs the guest until it exits and calls the handler that the table names for the
exit's reason, or for its key where the reason has keys (vmm/vtx/keys.py), again and again as long as
handlers answer RESUME or ADVANCE; port/vcpu_enter.c keeps counts and times while it is there. Bit 0 of a
verdict makes the next entry advance RIP. See vmm/handlers/__init__.py for the table's contents.
"""

import micropython
from micropython import const

from vmm import verdict
from vmm.vtx import reasons
from vmm.vtx.frame import COUNT, KEYS, TICKS, VERDICT, WANTS
from vmm.vtx.keys import Keys

_SLOTS = const(256)  # of the table; those beyond the reasons are for keys


@micropython.viper
def run(vcpu, enter) -> int:
    """Enter the guest until a handler gives a verdict beyond RESUME and ADVANCE; return it.

    enter: vmx.enter. A handler's exception passes through; the guest then stands at the
    instruction that exited.
    """
    f = ptr32(vcpu)
    enter(vcpu)
    return f[VERDICT]


class Unhandled:
    """The handler of every reason that has none: dumps, and stops that guest."""

    def __init__(self, report):
        self._report = report

    def exit(self, vcpu):
        self._report(vcpu, "no handler for this exit")
        return verdict.STOP


class Exits:
    """A vCPU's dispatch table: table[reason](vcpu) -> verdict, and the words each needs."""

    def __init__(self, report):
        """report(vcpu, text): dump the guest's state for the user."""
        self.unhandled = Unhandled(report).exit
        self.table = [self.unhandled] * _SLOTS
        self.wants = [0] * reasons.SLOTS
        self._vcpu = None
        self._keys = {}  # reason: its Keys
        self._free = list(range(_SLOTS - 1, reasons.COMPLETED, -1))  # slots beyond the reasons
        self._handlers = {}  # handler: its slot there
        self._overrides = {}  # reason: [(key, what was there)], [handler]
        self._hidden = []  # reasons whose keys are out of use during a diversion
        self._direct = {}  # reason: keys are in use although the reason's own handler is not the default
        self._taken = {}
        self._current = list(self.table)
        self._diversion = None

    def add(self, reason, handler, wants=0):
        """Set the handler of a reason; ValueError where there is one already."""
        if reason in self._taken:
            raise ValueError("exit reason %d has a handler already" % reason)
        self._taken[reason] = handler
        self.wants[reason] = wants
        self.put(reason, handler)

    def add_completed(self, handler):
        """Set the handler of slot COMPLETED, which no exit leads to and no policy has."""
        self._current[reasons.COMPLETED] = handler
        self.table[reasons.COMPLETED] = handler

    def keyed(self, reason, offset, mask, bits=7):
        """Let a word of the frame, at `offset` bytes, choose among handlers of this reason (Keys)."""
        self._keys[reason] = Keys(offset, mask, bits, reason)

    def key(self, reason, key, handler, datum=0):
        """Set the handler of one key of a reason; frame.DATUM holds `datum` when it is called.

        ValueError where the key has one already, or there are too many keys or handlers.
        """
        found = self._overridden(reason, key) or self._keys[reason].find(key)
        if found and found[0] != reason:
            raise ValueError("key %#x of exit reason %d has a handler already" % (key, reason))
        self._put_key(reason, key, self._slot(handler), datum)

    def _overridden(self, reason, key):
        """What stood for a key before override(), as (slot, datum); None where nothing overrides it."""
        for other, before in self._overrides.get(reason, ()):
            if other == key:
                return before
        return None

    def _put_key(self, reason, key, slot, datum=0):
        """Into the table, or where override() keeps what it has replaced."""
        if self._overridden(reason, key):
            before = self._overrides[reason]
            before[:] = [(other, (slot, datum) if other == key else was) for other, was in before]
        else:
            self._keys[reason].put(key, slot, datum)

    def _slot(self, handler):
        slot = self._handlers.get(handler)
        if slot is None:
            if not self._free:
                raise ValueError("more than %d handlers of keys" % (_SLOTS - reasons.COMPLETED - 1))
            slot = self._free.pop()
            self._handlers[handler] = slot
            self._current[slot] = handler
            self.table[slot] = self._diversion or handler
        return slot

    def override(self, reason, handlers):
        """Let handlers {key: handler} stand before those of their keys, in place of such from before.

        False, and nothing is changed but that those from before are gone, where the reason has no
        keys or there is no room.
        """
        keys = self._keys.get(reason)
        for key, before in self._overrides.pop(reason, ()):
            slot = keys.find(key)[0]
            keys.put(key, *before)
            handler = self._current[slot]
            if self._handlers.get(handler) == slot:
                del self._handlers[handler]
                self._free.append(slot)
        if keys is None:
            return not handlers
        done = self._overrides[reason] = []
        try:
            for key, handler in handlers.items():
                slot = self._slot(handler)
                before = keys.find(key) or (reason, 0)
                keys.put(key, slot)
                done.append((key, before))
        except ValueError:
            self.override(reason, {})
            return False
        return True

    def unkey(self, reason, key):
        """Leave a key to the reason's handler again."""
        self._put_key(reason, key, reason)

    def default(self, reason):
        """The handler that was added, whatever policy sits in front of it now."""
        return self._taken[reason] if reason in self._taken else self.unhandled

    def put(self, reason, handler, keys=False):
        """Let `handler` stand in the table for a reason: a policy's hook, or default(reason).

        keys: its keys stay in use, so that it gets what they do not name.
        """
        self._direct[reason] = keys
        self._current[reason] = handler
        if self._diversion is None or self.table[reason] is not self._diversion:
            self.table[reason] = handler
        if self._vcpu is not None:
            self._use_keys(reason)

    def _use_keys(self, reason):
        """The keys of a reason lead past its handler: not where a policy wants to see the exits."""
        used = reason in self._keys and reason not in self._hidden
        if self._current[reason] is not self.default(reason) and not self._direct.get(reason):
            used = False
        _set(self._vcpu, KEYS + reason, self._keys[reason].hpa if used else 0)

    def handler(self, reason):
        """What put() named last."""
        return self._current[reason]

    def divert(self, handler, passing):
        """Until restore(), all reasons but those in `passing` go to `handler`."""
        self._diversion = handler
        table = [handler] * _SLOTS
        table[reasons.COMPLETED] = self._current[reasons.COMPLETED]
        for reason in passing:
            table[reason] = self._current[reason]
            if reason in self._keys:  # the slots of its keys are diverted with the others
                _set(self._vcpu, KEYS + reason, 0)
                self._hidden.append(reason)
        self.table[:] = table  # in place: the shim holds the list's items

    def restore(self):
        self._diversion = None
        self.table[:] = self._current
        hidden, self._hidden = self._hidden, []
        for reason in hidden:
            self._use_keys(reason)

    def statistics(self):
        """Return {reason name: (exits, host ticks)} of the reasons that occurred."""
        out = {}
        for reason, name in reasons.names().items():
            count = _word(self._vcpu, COUNT + 2 * reason)
            if count:
                out[name] = (count, _word(self._vcpu, TICKS + 2 * reason))
        return out

    def arm(self, vcpu):
        """Write the wanted words and the keys into the vCPU's frame."""
        self._vcpu = vcpu
        for reason in range(reasons.SLOTS):
            _set(vcpu, WANTS + reason, self.wants[reason])
            self._use_keys(reason)


@micropython.viper
def _set(vcpu, index: int, value: int):
    f = ptr32(vcpu)
    f[index] = value


@micropython.viper
def _word(vcpu, index: int) -> int:
    f = ptr32(vcpu)
    return f[index] | f[index + 1] << 32
