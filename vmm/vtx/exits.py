"""The exit loop and its dispatch table.

`vmx.enter` runs the guest until it exits and calls the table's handler for the exit's reason, or for its key if the
reason has keys (vmm/vtx/keys.py), and repeats that while handlers answer RESUME or ADVANCE. port/vcpu_enter.c counts
and times the exits. Bit 0 of a verdict makes the next entry advance RIP. vmm/handlers/__init__.py fills the table.

One class, since each change of a layer recomputes slots from all layers (docs/exits.md).
"""

from array import array

import micropython

from vmm import verdict
from vmm.vtx import reasons
from vmm.vtx.counted import Counted
from vmm.vtx.frame import COUNT, KEYS, TICKS, VERDICT, WANTS
from vmm.vtx.keys import Keys


@micropython.viper
def run(vcpu, enter) -> int:
    """Enter the guest until a handler returns a verdict other than RESUME and ADVANCE. Returns that.

    enter: vmx.enter. A handler's exception passes through; the guest then stands at the
    instruction that exited.
    """
    f = ptr32(vcpu)
    enter(vcpu)
    return f[VERDICT]


class Unhandled:
    """The handler of reasons without one: dumps and stops the guest."""

    def __init__(self, report):
        self._report = report

    def exit(self, vcpu):
        self._report(vcpu, "no handler for this exit")
        return verdict.STOP


class Exits:
    """A guest's dispatch tables: table[slot](vcpu) -> verdict, one for each vCPU, and the words that each reason needs.

    They are computed from four layers, each of which covers the ones before:
    1. handlers of reasons, and of keys of a reason (add, key);
    2. handlers for a whole reason with all its keys, the latest before the others (replace);
    3. a front, which calls policies first, before the reason's handlers or before those of keys (front);
    4. the diversion of all slots of one vCPU for one instruction (divert).
    A handler is the same for all vCPUs and gets the vCPU as its argument; or it is a tuple with one for each vCPU,
    where an attribute look-up would cost too much (each).
    Each layer is changed by methods of this class; no other code writes into the table. docs/exits.md has a picture.
    """

    _conceal = None
    _watching = ()  # slots of layer 1 whose keys are watched pages

    def __init__(self, report):
        """report(vcpu, text): dump the guest's state for the user."""
        self.unhandled = Unhandled(report).exit
        self.wants = [0] * reasons.SLOTS
        self._more = {}  # reason: Counted bits of WANTS in addition to the handler's
        self._vcpus = []
        self.tables = []  # the lists, by vCPU
        self._diversions = []  # by vCPU, layer 4: ({slot: handler}, table), or None
        self._kept = []  # by vCPU: (handler, as shown, table, {slot: handler}) of the last diversion, for reuse
        self._covered = {}  # slot: its handler of layer 1, if another one covers it
        self._keys = {}  # reason: its Keys
        self._slots = {}  # reason: {handler of keys: its slot}
        self._free = []  # slots for keys that were returned
        self._unused = reasons.TABLE_SLOTS  # slots from ALL_SLOTS up to this one have never been in use
        self._replaced = {}  # layer 2: {reason: [(whose, make, handler), ...]}, the last one serves
        self._fronts = {}  # layer 3: {reason: front}
        self._fronted = {}  # reason: {key with a slot of its front: (slot, datum) of layer 1}
        self._front_slots = {}  # reason: {handler of its front, before keys: [its slot, number of keys with it]}
        # Layers 1 to 3, by slot; for one vCPU it is the table itself.
        self._current = [self.unhandled] * reasons.TABLE_SLOTS
        self._after = None
        self._after_but = ()
        self._whole = {}  # reason with a front: cached result of handler()
        self._heads = {}  # {reason without keys: (make, ...)}

    def new_table(self):
        """Return a new vCPU's table: a list for vmx.VCPU, and for attach()."""
        return list(self._current) if self.tables else self._current

    def attach(self, vcpu, table):
        """Add a vCPU with its table, in the order of their numbers. vcpu: has number, use(table)."""
        if self.tables and self.tables[0] is self._current:
            self._current = list(self._current)
        self.tables.append(table)
        self._diversions.append(None)
        self._kept.append(None)
        self._vcpus.append(vcpu)

    def after(self, make, but):
        """Put make(handler) into the tables instead of each handler of layers 1 to 3, except in slots `but`; None: end
        that. For a guest with several vCPUs."""
        self._after = make
        self._after_but = but
        self._show_all()

    def conceal(self, make):
        """Put make(handler) into the tables instead of each handler of layers 2 to 4, and of watched pages; None: end
        that."""
        self._conceal = make
        if self.tables[0] is self._current:
            self._current = list(self._current)
        self._whole = {}
        self._kept = [None] * len(self._kept)
        self._show_all()

    def concealed(self, handler):
        """The concealed version of a handler of a watcher's exits, for a table of the caller's own."""
        return handler if self._conceal is None else _before(self._conceal, handler)

    def _show_all(self):
        """Write layers 1 to 3 into the tables."""
        known = {}
        for slot in range(reasons.TABLE_SLOTS):
            for number, table in enumerate(self.tables):
                table[slot] = self._shown(slot, number, known)

    def _shown(self, slot, number, known):
        """The handler in a slot of a vCPU's table. known: {(id of a handler, id of make): make(handler)}."""
        handler = _of(self._current[slot], number)
        if self._conceal is not None and self._watched(slot):
            handler = _made(self._conceal, handler, known)
        if self._after is not None and slot not in self._after_but:
            handler = _made(self._after, handler, known)
        return handler

    def _watched(self, slot):
        """Whether a watcher causes exits by this slot."""
        if slot == reasons.ATTENTION:
            return False
        if slot in self._covered or slot in self._watching:
            return True
        return any([slot == taken for slots in self._front_slots.values() for taken, _ in slots.values()])

    def each(self, make):
        """Return make(vcpu), or for several vCPUs the tuple of them: a handler for add() and key()."""
        if len(self._vcpus) == 1:
            return make(self._vcpus[0])
        return tuple([make(vcpu) for vcpu in self._vcpus])

    # -- layer 1

    def add(self, reason, handler, wants=0):
        """Set the handler of a reason; ValueError if it has one already. wants: bits of frame.WANTS."""
        if self.default(reason) is not self.unhandled:
            raise ValueError("exit reason %d has a handler already" % reason)
        self.wants[reason] = wants
        self._put(reason, handler)

    def add_slot(self, slot, handler):
        """Set the handler of a slot that is no exit: COMPLETED and WRITTEN, which no other layer covers, and those of
        policies' events."""
        self._put(slot, handler)

    def keyed(self, reason, offset, mask, bits=7):
        """Give a reason keys: a word of the frame, at `offset` bytes, selects the handler (Keys)."""
        self._keys[reason] = Keys(offset, mask, bits, reason)
        self._slots[reason] = {}
        self._fronted[reason] = {}

    def key(self, reason, key, handler, datum=0, watches=False):
        """Set the handler of one key of a reason; frame.DATUM is `datum` when it is called. watches: a watcher causes
        its exits.

        ValueError if the key has a handler already, or there are too many keys or handlers.
        """
        found = self._fronted[reason].get(key) or self._keys[reason].find(key)
        if found and found[0] != reason:
            raise ValueError("key %#x of exit reason %d has a handler already" % (key, reason))
        slots = self._slots[reason]
        slot = slots.get(handler)
        if slot is None:
            slot = slots[handler] = self._take_slot()
            if watches:
                self._watching += (slot,)
            self._put(slot, handler)
        self._put_key(reason, key, slot, datum)
        if reason in self._fronts:
            self._compute(reason)

    def key_many(self, reason, handler, pairs):
        """key() for several keys of one handler, not covered by a front. pairs: [key, datum, ...]."""
        if pairs:
            self.key(reason, pairs[0], handler, pairs[1])
            keys = self._keys[reason]
            keys.put_many(keys.find(pairs[0])[0], array("I", pairs[2:]))

    def unkey(self, reason, key):
        """Remove the handler of a key: the reason's handler serves the key again."""
        self._put_key(reason, key, reason, 0)
        if reason in self._fronts:
            self._compute(reason)

    def default(self, slot):
        """The handler of layer 1 of a reason or of a slot for keys, covered or not."""
        return self._covered.get(slot, self._current[slot])

    def _take_slot(self):
        if not self._has_slot():
            raise ValueError("more than %d handlers of keys" % (reasons.TABLE_SLOTS - reasons.ALL_SLOTS))
        if self._free:
            return self._free.pop()
        self._unused -= 1
        return self._unused

    def _has_slot(self):
        return bool(self._free) or self._unused > reasons.ALL_SLOTS

    def _put_key(self, reason, key, slot, datum):
        """Put a key into the table of keys, or, while a front covers it, behind the front."""
        fronted = self._fronted[reason]
        if key in fronted:
            fronted[key] = slot, datum
        else:
            self._keys[reason].put(key, slot, datum)

    # -- layers 2 and 3

    def replace(self, reason, whose, make=None):
        """Let make(vcpu, below) serve all exits of a reason, for any key, instead of layer 1; None: end that.

        There may be several, by names of their users, `whose`: the latest one serves, and may call `below`, the
        handler of the one before it, or of layer 1. ValueError if `whose` has one already.
        """
        stack = self._replaced.get(reason, ())
        names = [name for name, _, _ in stack]
        if make is None and whose not in names:
            return
        if make is None:
            at = names.index(whose)
            kept, added = list(stack[:at]), stack[at + 1 :]
        elif whose in names:
            raise ValueError("exit reason %d is replaced by %s already" % (reason, whose))
        else:
            kept, added = list(stack), ((whose, make, None),)
        for name, make, _ in added:
            below = kept[-1][2] if kept else self.default(reason)
            kept.append((name, make, self.each(lambda vcpu: make(vcpu, _of(below, vcpu.number)))))
        if kept:
            self._replaced[reason] = kept
        else:
            del self._replaced[reason]
        self._compute(reason)

    def _replacement(self, reason):
        """The handler of layer 2 of a reason; of layer 1 where none is replaced."""
        return self._replaced[reason][-1][2] if reason in self._replaced else self.default(reason)

    def front(self, reason, front=None, keys=None):
        """Put `front` before the handlers of a reason; None: end that. To be called again when the front has changed
        for exits of these `keys`; None: of any key.

        A front has keys(), the keys that it names, and three methods that return a handler in front of the handler
        `below`, or `below` itself: named(key, below) for exits of a named key, others(below) for those of other keys,
        every(below) for exits of any key.
        """
        alone = front is None or self._fronts.get(reason) is not front
        if front is None:
            self._fronts.pop(reason, None)
        else:
            self._fronts[reason] = front
        if keys is None or alone or reason not in self._front_slots or not self._replace_keys(reason, front, keys):
            self._compute(reason)

    def head(self, reason, make, on=True):
        """Put make(handler) before the handlers and the front of a reason without keys; or (not on) end that.

        For exits that the monitor causes for itself, which policies do not get. There may be several.
        """
        heads = [other for other in self._heads.get(reason, ()) if other is not make]
        self._heads[reason] = tuple(heads + [make] if on else heads)
        self._compute(reason)

    def _headed(self, reason, shown):
        """A handler with the heads of its reason before it."""
        for make in self._heads.get(reason, ()):
            shown = _before(make, shown)
        return shown

    def handler(self, reason, vcpu):
        """The handler of layers 1 to 3 for exits of a reason of this vCPU, for any key."""
        if reason not in self._fronts:
            return _of(self._current[reason], vcpu.number)
        if reason not in self._whole:
            whole = _before(self._fronts[reason].every, self._replacement(reason))
            self._whole[reason] = self.concealed(self._headed(reason, whole))
        return _of(self._whole[reason], vcpu.number)

    def _compute(self, reason):
        """Compute layers 1 to 3 of a reason, and write them into the tables."""
        self._withdraw(reason)
        self._whole.pop(reason, None)
        front = self._fronts.get(reason)
        handler = self.default(reason)
        before = _alone
        if front is not None:
            before = front.every
            if reason in self._keys and reason not in self._replaced and self._place(reason, front):
                before = front.others
        shown = _before(before, self._replacement(reason))
        self._cover(reason, handler, self._headed(reason, shown))
        for handler, slot in self._slots.get(reason, {}).items():
            self._cover(slot, handler, _before(before, handler))
        self._use_keys(reason)

    def _cover(self, slot, handler, shown):
        """Put `shown` into a slot; `handler` is its covered handler of layer 1."""
        if shown is handler:
            self._covered.pop(slot, None)
        else:
            self._covered[slot] = handler
        self._put(slot, shown)

    def _withdraw(self, reason):
        """Return the slots and the keys of the reason's front."""
        fronted = self._fronted.get(reason)
        if fronted:
            keys = self._keys[reason]
            for key, under in fronted.items():
                keys.put(key, *under)
            fronted.clear()
        for slot, _ in self._front_slots.pop(reason, {}).values():
            self._give_back(slot, reason)

    def _give_back(self, slot, reason):
        self._put(slot, self.unhandled)
        self._free.append(slot)
        self.gave_back(slot, reason)

    def _place(self, reason, front):
        """Give the keys that a front names slots of their own. False, with none given, if there is no room."""
        self._front_slots[reason] = {}
        for key in front.keys():
            if not self._place_key(reason, front, key):
                self._withdraw(reason)
                return False
        return True

    def _place_key(self, reason, front, key):
        """Give a key that a front names a slot. False if there is no room."""
        under = self._keys[reason].find(key) or (reason, 0)
        handler = _before(lambda below: front.named(key, below), self.default(under[0]))
        slots = self._front_slots[reason]
        found = slots.get(handler)
        if found is None:
            if not self._has_slot():
                return False
            found = slots[handler] = [self._take_slot(), 0]
            self._put(found[0], handler)
        found[1] += 1
        self._enter(reason, key, found[0], under[1])
        self._fronted[reason][key] = under
        return True

    def _enter(self, reason, key, slot, datum):
        try:
            self._keys[reason].put(key, slot, datum)
        except ValueError:
            self._keys[reason] = self._keys[reason].grown()
            self._use_keys(reason)
            self._keys[reason].put(key, slot, datum)

    def _replace_keys(self, reason, front, keys):
        """Update the front's handlers of these keys in the tables. False if there is no room."""
        self._whole.pop(reason, None)
        fronted, slots, named = self._fronted[reason], self._front_slots[reason], front.keys()
        for key in keys:
            if key in fronted:
                handler = self._current[self._keys[reason].find(key)[0]]
                found = slots[handler]
                found[1] -= 1
                if not found[1]:
                    del slots[handler]
                    self._give_back(found[0], reason)
                self._enter(reason, key, *fronted.pop(key))
            if key in named and not self._place_key(reason, front, key):
                return False
        self._put(reason, self._current[reason])  # for diverted vCPUs, whose table has handler()
        return True

    def _use_keys(self, reason):
        """Enable the keys of a reason in the vCPUs' frames, or disable them: they are unused where one handler serves
        all exits."""
        if reason >= reasons.SLOTS:
            return
        used = reason in self._keys and reason not in self._replaced
        for vcpu, diversion in zip(self._vcpus, self._diversions):
            found = used and (diversion is None or reason not in diversion[0])
            _set(vcpu, KEYS + reason, self._keys[reason].hpa if found else 0)

    # -- layer 4

    def divert(self, vcpu, handler, instead):
        """Until restore(), `handler` serves all slots of a vCPU, except those of `instead`: {reason: handler, or None
        for handler()}."""
        others = {reasons.COMPLETED: None, reasons.WRITTEN: None}
        others.update(instead)
        if self._conceal is not None and others.get(reasons.EPT_VIOLATION):
            others[reasons.EPT_VIOLATION] = self._conceal(others[reasons.EPT_VIOLATION])
        kept, shown, table, before = self._kept[vcpu.number] or (None, None, None, ())
        if kept is not handler:
            shown = self.concealed(handler)
            table, before = [shown] * reasons.TABLE_SLOTS, ()
        for slot in before:
            table[slot] = shown
        self._kept[vcpu.number] = handler, shown, table, others
        self._diversions[vcpu.number] = others, table
        for slot in others:
            table[slot] = others[slot] or self.handler(slot, vcpu)
        self._divert_keys(others)
        vcpu.use(table)

    def restore(self, vcpu):
        """End the diversion of a vCPU."""
        others = self._diversions[vcpu.number][0]
        self._diversions[vcpu.number] = None
        vcpu.use(self.tables[vcpu.number])
        self._divert_keys(others)

    def _divert_keys(self, others):
        for reason in others:
            if reason in self._keys:
                self._use_keys(reason)

    def _put(self, slot, handler):
        """Set a slot of layers 1 to 3, and write it into the tables."""
        self._current[slot] = handler
        if self.tables and self.tables[0] is not self._current:
            for number, table in enumerate(self.tables):
                table[slot] = self._shown(slot, number, {})
        for vcpu, diversion in zip(self._vcpus, self._diversions):
            if diversion is not None and slot in diversion[0]:
                diversion[1][slot] = diversion[0][slot] or self.handler(slot, vcpu)

    def gave_back(self, slot, reason):
        """Hook: a slot is no longer in use for a reason."""

    def slots(self, reason):
        """Yield (slot, keys that it serves) for a reason's slots. Its own has None: it serves all other keys."""
        yield reason, None
        fronts = [slot for slot, _ in self._front_slots.get(reason, {}).values()]
        for slot in sorted(set(list(self._slots.get(reason, {}).values()) + fronts)):
            yield slot, sorted(self._keys[reason].of_slot(slot))

    def statistics(self):
        """Return {reason name: (exits, host TSC ticks)} of the reasons that have occurred, summed over all vCPUs."""
        out = {}
        for reason, name in reasons.each():
            count = sum([_word(vcpu, COUNT + 2 * reason) for vcpu in self._vcpus])
            if count:
                out[name] = (count, sum([_word(vcpu, TICKS + 2 * reason) for vcpu in self._vcpus]))
        return out

    def want(self, reason, bits, count):
        """Add `count` users (negative: remove them) of words at exits of a reason, in addition to its handler's. bits:
        of frame.WANTS."""
        self._more.setdefault(reason, Counted()).add(bits, count)
        self._want(reason)

    def _want(self, reason):
        wants = self.wants[reason] | (self._more[reason].bits if reason in self._more else 0)
        for vcpu in self._vcpus:
            _set(vcpu, WANTS + reason, wants)

    def arm(self):
        """Write the WANTS bits and the keys into the vCPUs' frames."""
        for reason, wants in enumerate(self.wants):
            if wants:
                self._want(reason)
        for reason in self._keys:
            self._use_keys(reason)


def _alone(below):
    """The front of a reason without one."""
    return below


def _made(make, handler, known):
    """make(handler), cached in `known`, so that slots with one handler share the result."""
    which = id(handler), id(make)
    if which not in known:
        known[which] = make(handler)
    return known[which]


def _of(handler, number):
    """The vCPU's handler, of one that may be a tuple."""
    return handler[number] if isinstance(handler, tuple) else handler


def _before(front, below):
    """front(below), for each handler of a tuple."""
    if not isinstance(below, tuple):
        return front(below)
    shown = tuple([front(handler) for handler in below])
    return below if shown == below else shown


@micropython.viper
def _set(vcpu, index: int, value: int):
    f = ptr32(vcpu)
    f[index] = value & 0xFFFFFFFF


@micropython.viper
def _word(vcpu, index: int) -> int:
    f = ptr32(vcpu)
    return f[index] | f[index + 1] << 32
