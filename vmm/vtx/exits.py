"""The exit loop and its dispatch table.

`vmx.enter` runs the guest until it exits and calls the table's handler for the exit's reason, or for its key where the
reason has keys (vmm/vtx/keys.py), again and again while handlers answer RESUME or ADVANCE; port/vcpu_enter.c counts and
times the exits. Bit 0 of a verdict makes the next entry advance RIP. vmm/handlers/__init__.py fills the table.
"""

from array import array

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
    """A vCPU's dispatch table: table[slot](vcpu) -> verdict, and the words that each reason needs.

    It is computed from four layers, of which each stands in front of the ones before:
    1. handlers of reasons, and of keys of a reason (add, key);
    2. a handler that stands for a whole reason, keys and all (replace);
    3. what asks policies first (front), before the reason or before keys of it;
    4. the diversion of all slots for one instruction (divert).
    Layers are changed by the methods here, and no other code writes into the table. docs/exits.md has a picture.
    """

    def __init__(self, report):
        """report(vcpu, text): dump the guest's state for the user."""
        self.unhandled = Unhandled(report).exit
        self.table = [self.unhandled] * _SLOTS
        self.wants = [0] * reasons.SLOTS
        self._vcpu = None
        self._covered = {}  # slot: its handler of layer 1, where another one stands in front of it
        self._keys = {}  # reason: its Keys
        self._slots = {}  # reason: {handler of keys: its slot}
        self._free = []  # slots for keys that were given back
        self._unused = _SLOTS  # slots from COMPLETED up to here were never taken
        self._replaced = {}  # layer 2: {reason: handler}
        self._fronts = {}  # layer 3: {reason: front}
        self._fronted = {}  # reason: {key with a slot of its front: (slot, datum) of layer 1}
        self._front_slots = {}  # reason: slots that its front has
        self._diversion = None  # layer 4: (handler, {slot: handler})
        self._current = self.table  # layers 1 to 3, by slot; a list of its own during a diversion
        self._spare = None  # that list, kept for the next diversion
        self._whole = {}  # reason with a front: the result of handler() since the front was set

    # -- layer 1

    def add(self, reason, handler, wants=0):
        """Set the handler of a reason; ValueError where there is one already."""
        if self.default(reason) is not self.unhandled:
            raise ValueError("exit reason %d has a handler already" % reason)
        self.wants[reason] = wants
        self._put(reason, handler)

    def add_completed(self, handler):
        """Set the handler of slot COMPLETED, which no exit leads to and no other layer changes."""
        self._put(reasons.COMPLETED, handler)

    def keyed(self, reason, offset, mask, bits=7):
        """Let a word of the frame, at `offset` bytes, choose among handlers of this reason (Keys)."""
        self._keys[reason] = Keys(offset, mask, bits, reason)
        self._slots[reason] = {}
        self._fronted[reason] = {}

    def key(self, reason, key, handler, datum=0):
        """Set the handler of one key of a reason; frame.DATUM holds `datum` when it is called.

        ValueError where the key has one already, or there are too many keys or handlers.
        """
        found = self._fronted[reason].get(key) or self._keys[reason].find(key)
        if found and found[0] != reason:
            raise ValueError("key %#x of exit reason %d has a handler already" % (key, reason))
        slots = self._slots[reason]
        slot = slots.get(handler)
        if slot is None:
            slot = slots[handler] = self._take_slot()
            self._put(slot, handler)
        self._put_key(reason, key, slot, datum)
        if reason in self._fronts:
            self._compute(reason)

    def key_many(self, reason, handler, pairs):
        """key() for several keys of one handler, where nothing stands in front of them. pairs: [key, datum, ...]."""
        if pairs:
            self.key(reason, pairs[0], handler, pairs[1])
            keys = self._keys[reason]
            keys.put_many(keys.find(pairs[0])[0], array("I", pairs[2:]))

    def unkey(self, reason, key):
        """Remove the handler of a key; the reason's handler serves it again."""
        self._put_key(reason, key, reason, 0)
        if reason in self._fronts:
            self._compute(reason)

    def default(self, slot):
        """The handler of a reason, or of a slot for keys, in layer 1, whatever covers it now."""
        return self._covered.get(slot, self._current[slot])

    def _take_slot(self):
        if not self._has_slot():
            raise ValueError("more than %d handlers of keys" % (_SLOTS - reasons.COMPLETED - 1))
        if self._free:
            return self._free.pop()
        self._unused -= 1
        return self._unused

    def _has_slot(self):
        return bool(self._free) or self._unused > reasons.COMPLETED + 1

    def _put_key(self, reason, key, slot, datum):
        """Enter a key in the table of keys, or, while a front covers it, behind the front."""
        fronted = self._fronted[reason]
        if key in fronted:
            fronted[key] = slot, datum
        else:
            self._keys[reason].put(key, slot, datum)

    # -- layers 2 and 3

    def replace(self, reason, handler=None):
        """Let `handler` serve all exits of a reason, whatever their keys, in place of layer 1; None ends that."""
        if handler is None:
            self._replaced.pop(reason, None)
        else:
            self._replaced[reason] = handler
        self._compute(reason)

    def front(self, reason, front=None):
        """Let `front` stand before the handlers of a reason; None ends that. Called again when its keys change.

        A front has keys(), those that it names, and three methods that return a handler to stand before the handler
        `below`, or `below` itself: named(key, below) for exits of a key that it names, others(below) for those of any
        other, every(below) for exits of any key.
        """
        if front is None:
            self._fronts.pop(reason, None)
        else:
            self._fronts[reason] = front
        self._compute(reason)

    def handler(self, reason):
        """A handler that serves any exit of a reason, whatever its key, by layers 1 to 3."""
        if reason not in self._fronts:
            return self._current[reason]
        if reason not in self._whole:
            below = self._replaced.get(reason, self.default(reason))
            self._whole[reason] = self._fronts[reason].every(below)
        return self._whole[reason]

    def _compute(self, reason):
        """Bring layers 1 to 3 of a reason into the table."""
        self._withdraw(reason)
        self._whole.pop(reason, None)
        front = self._fronts.get(reason)
        handler = self.default(reason)
        before = _alone
        if front is not None:
            before = front.every
            if reason in self._keys and reason not in self._replaced and self._place(reason, front):
                before = front.others
        self._cover(reason, handler, before(self._replaced.get(reason, handler)))
        for handler, slot in self._slots.get(reason, {}).items():
            self._cover(slot, handler, before(handler))
        self._use_keys(reason)

    def _cover(self, slot, handler, shown):
        """Cover a slot of layer 1: `shown` stands in it, `handler` behind."""
        if shown is handler:
            self._covered.pop(slot, None)
        else:
            self._covered[slot] = handler
        self._put(slot, shown)

    def _withdraw(self, reason):
        """Give back the slots and the keys that the reason's front has."""
        fronted = self._fronted.get(reason)
        if fronted:
            keys = self._keys[reason]
            for key, under in fronted.items():
                keys.put(key, *under)
            fronted.clear()
        for slot in self._front_slots.pop(reason, ()):
            self._put(slot, self.unhandled)
            self._free.append(slot)

    def _place(self, reason, front):
        """Give the keys that a front names slots of their own; False, with none given, where there is no room."""
        fronted = self._fronted[reason]
        slots = self._front_slots[reason] = []
        known = {}  # handler: its slot
        for key in front.keys():
            under = self._keys[reason].find(key) or (reason, 0)
            handler = front.named(key, self.default(under[0]))
            slot = known.get(handler)
            if slot is None:
                if not self._has_slot():
                    self._withdraw(reason)
                    return False
                slot = known[handler] = self._take_slot()
                slots.append(slot)
                self._put(slot, handler)
            try:
                self._keys[reason].put(key, slot, under[1])
            except ValueError:
                self._keys[reason] = self._keys[reason].grown()
                self._use_keys(reason)
                self._keys[reason].put(key, slot, under[1])
            fronted[key] = under
        return True

    def _use_keys(self, reason):
        """Let the shim use this reason's keys, or not: not where one handler serves all its exits."""
        if self._vcpu is None or reason >= reasons.SLOTS:
            return
        used = reason in self._keys and reason not in self._replaced
        if used and self._diversion is not None and reason in self._diversion[1]:
            used = False
        _set(self._vcpu, KEYS + reason, self._keys[reason].hpa if used else 0)

    # -- layer 4

    def divert(self, handler, instead):
        """Until restore(), all slots go to `handler`, but those of `instead`, {reason: handler, or None: as before}."""
        others = {reasons.COMPLETED: None}
        others.update(instead)
        self._spare = self._spare or [None] * _SLOTS
        self._current = self._spare
        self._current[:] = self.table
        self._diversion = handler, others
        self._divert_keys(others)
        table = [handler] * _SLOTS
        for slot in others:
            table[slot] = others[slot] or self.handler(slot)
        self.table[:] = table  # in place: the shim holds the list's items

    def restore(self):
        """End the diversion."""
        others, self._diversion = self._diversion[1], None
        self.table[:] = self._current
        self._current = self.table
        self._divert_keys(others)

    def _divert_keys(self, others):
        for reason in others:
            if reason in self._keys:
                self._use_keys(reason)

    def _put(self, slot, handler):
        """A slot by layers 1 to 3: into the table, unless it is diverted."""
        self._current[slot] = handler
        if self._diversion is None:
            self.table[slot] = handler
        elif slot in self._diversion[1]:
            self.table[slot] = self._diversion[1][slot] or self.handler(slot)
        else:
            self.table[slot] = self._diversion[0]

    def statistics(self):
        """Return {reason name: (exits, host ticks)} of the reasons that occurred."""
        out = {}
        for reason, name in reasons.names().items():
            count = _word(self._vcpu, COUNT + 2 * reason)
            if count:
                out[name] = (count, _word(self._vcpu, TICKS + 2 * reason))
        return out

    def arm(self, vcpu):
        """Write the bits of the words to read, and the keys, into the vCPU's frame."""
        self._vcpu = vcpu
        for reason, wants in enumerate(self.wants):
            if wants:
                _set(vcpu, WANTS + reason, wants)
        for reason in self._keys:
            self._use_keys(reason)


def _alone(below):
    """The front of a reason without one: its handlers stand alone."""
    return below


@micropython.viper
def _set(vcpu, index: int, value: int):
    f = ptr32(vcpu)
    f[index] = value


@micropython.viper
def _word(vcpu, index: int) -> int:
    f = ptr32(vcpu)
    return f[index] | f[index + 1] << 32
