"""vm.explain(): why a guest died, loops or hangs, in words.

    >>> vms['young'].explain()

The chain of a triple fault is found by vmm/debug/replay.py at the moment of the fault, and its text is made then, since
memory may be gone a moment later; vm.ends has how the last runs of a guest ended. vmm/debug/hang.py examines a guest
that has not ended.
"""

from micropython import const

from vmm.debug import cause, delivery
from vmm.debug.machine import Machine, named, namer
from vmm.debug.names import EXCEPTIONS, LINES, TITLES, vector_name
from vmm.debug.replay import Replay
from vmm.fault import DF
from vmm.memory.paging import FETCH
from vmm.scheduling import states

_SHOWN = const(4)  # earlier ends
_EXITS = const(8)
_HANDLER = const(16)  # bytes from a handler's start that count as its beginning


class Text:
    """Text that the prompt shows as it is."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text

    __str__ = __repr__


class Death:
    """A triple fault: short (the exceptions' names), lines (with marks for named()), exits (lines on the last ones),
    when (ticks of the guest's clock)."""

    def __init__(self, short, lines):
        self.short = short
        self.lines = lines
        self.exits = []
        self.when = 0


class Deaths:
    """Finds the causes of one VM's triple faults."""

    def __init__(self, vm):
        self._vm = vm
        self._replay = None
        self.last = None  # the Death of the triple fault at hand
        self._exits = []
        self._when = 0

    def begin(self, vcpu):
        """Begin a replay of the vCPU's triple fault; True: it runs, and the exit loop ends with the fault once more."""
        self.last = None
        self._when = self._vm.clock.now()
        self._exits = _last_exits(self._vm)
        replay = Replay(vcpu, self._done)
        replay.begin()
        self._replay = replay
        return True

    def over(self, vcpu):
        """Whether the triple fault is the end of a replay."""
        replay, self._replay = self._replay, None
        return replay is not None

    def _done(self, replay):
        self.last = death(Machine(replay.vcpu), replay.chain, replay.interrupt)
        self.last.exits, self._exits = self._exits, []
        self.last.when = self._when


def _last_exits(vm):
    """Lines on the last exits, where they are recorded (vm.exits.record())."""
    recording = vm.exits._recording
    if recording is None or not recording.size:
        return []
    return repr(vm.exits.trace(_EXITS)).split("\n")


def death(m, chain, interrupt):
    """The Death of a chain of replay.Step."""
    lines = []
    if interrupt is not None:
        lines.append("an interrupt came at %s: %s" % (m.place(cause.instruction(m)[0]), _interrupt(m, interrupt)))
    names = ["interrupt %#x" % interrupt] if interrupt is not None else []
    before = None
    for step in chain:
        name = vector_name(step.vector, step.error)
        if step.during is None:
            lines += _first(m, step)
        else:
            if step.during == DF and before is not None:
                lines.append("%s in the delivery of %s makes a double fault, #DF" % (
                    vector_name(before.vector), vector_name(before.during),
                ))  # fmt: skip
                names.append("#DF")
            lines += _in_delivery(m, step, interrupt)
        names.append(name)
        before = step
    if not chain:
        lines.append("the fault did not come again when the instruction was repeated: registers are as before it")
        lines += _code(m)
    else:
        lines.append("an exception in the delivery of #DF: the CPU shuts down, a triple fault")
    return Death(", ".join(names), lines)


def _interrupt(m, vector):
    text = "vector %#x" % vector
    pic = m.vm.pc.pic
    for line in range(16):
        if pic.vector(line) == vector:
            text += ", line %d of the 8259s%s" % (line, " (%s)" % LINES[line] if line in LINES else "")
    if vector < 32:
        text += ". That is also the vector of %s: the 8259s have not been moved away from the exceptions" % (
            EXCEPTIONS.get(vector, "a reserved exception")
        )
    return text


def _code(m):
    gva, line = cause.instruction(m)
    return [] if line is None else ["    " + line.text(m.place, "")]


def _first(m, step):
    """The exception that the instruction raised."""
    gva = cause.instruction(m)[0]
    title = TITLES.get(step.vector, "")
    lines = ["%s%s, at %s" % (vector_name(step.vector, step.error), " " + title if title else "", m.place(gva))]
    lines += _code(m)
    lines += ["    " + text for text in cause.words(m, step.vector, step.error, step.address)]
    return lines + ["    " + text for text in _in_handler(m, gva)]


def _in_handler(m, gva):
    """Where RIP is the handler of an exception: it raised one itself."""
    if not m.protected:
        return []
    for vector in range(min((m.idt_limit + 1) // m.gate_size, 32)):
        try:
            gate = m.gate(vector)
        except ValueError:
            return []
        if gate.raw and gate.present and 0 <= gva - gate.offset < _HANDLER:
            text = ["RIP is at the beginning of the handler of %s (gate %d)" % (vector_name(vector), vector)]
            if m.walk(gate.offset, FETCH).why:
                text.append("each of them raised the next one there, until no stack was left")
            return text
    return []


def _in_delivery(m, step, interrupt):
    """An exception in the delivery of another event."""
    external = step.during == interrupt and step.during not in EXCEPTIONS
    what = "interrupt %#x" % step.during if external else vector_name(step.during)
    if step.software and step.during not in EXCEPTIONS:
        what = "INT %#x" % step.during
    lines = ["the CPU could not deliver %s: %s" % (what, vector_name(step.vector, step.error))]
    found = delivery.failure(m, delivery.Event(step.during, not external and not step.software, step.software))
    if found is not None and found.vector == step.vector and found.address == step.address:
        lines.append("    " + found.why)
    elif step.address is not None:
        lines += ["    " + text for text in cause.page_fault(m, step.error or 0, step.address)]
    elif step.error:
        lines.append("    " + cause.selector_fault(m, step.error))
    return lines


def explain(vm):
    """Text on a guest's state: the end of its run, a reset loop, a pause, or a hang."""
    from vmm.debug import hang

    behind = namer(vm)
    lines = []
    ends = vm.ends
    state = vm.state
    if ends and ends[-1].start == vm.starts and state in (states.STOPPED, states.OFF):
        lines += _tell(vm, ends[-1], behind)
        earlier = ends[:-1]
    else:
        lines += _panic(vm) + [named(line, behind) for line in hang.look(vm)]
        earlier = ends
    for end in earlier[-_SHOWN:][::-1]:
        lines.append("")
        lines += _tell(vm, end, behind)
    return Text("\n".join(lines))


def _panic(vm):
    """Lines on a Linux that stands still since it has panicked."""
    from vmm.insight.linux import panic

    try:
        return panic.lines(vm.kernel) if vm.symbols.loaded else []
    except ValueError:
        return []  # no Linux


def _tell(vm, end, behind):
    """Lines on a vmm.life.End."""
    lines = ["run %d of %s ended after %.6f s: %s" % (end.start, vm.name, end.seconds, end.why)]
    number = 0
    for line in end.death.lines if end.death is not None else ():
        if line.startswith(" "):
            lines.append(" " + named(line, behind))
        else:
            number += 1
            lines.append("%2d. %s" % (number, named(line, behind)))
    if end.death is not None and end.death.exits:
        lines += ["the last exits before it:"] + [" " + line for line in end.death.exits]
    return lines
