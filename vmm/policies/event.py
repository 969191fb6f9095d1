"""The base of the event classes in vmm/policies/events, one file each.

An event says which exits are its own, which filters narrow them, which controls have to be armed, and what the answers
do. docs/policies.md, "How to add an event", has the steps.
"""

from vmm import verdict
from vmm.policies import general
from vmm.policies.link import unable, unable_to_skip


class Needs:
    """The exits that have to be armed while a policy is attached (arming.py); by default none.

    exceptions: bits of the exception bitmap. fetches: page faults of the kernel's fetches. msrs: ((index, write), ...)
    of the MSR bitmaps; all ports exit. primary, secondary: names of processor-based controls (vmm/vtx/controls.py).
    pages: page numbers of gpas, and rights, R, W and X of EPT or-ed, that are taken from these. registers: 0 and 4,
    control registers of which the change of any bit exits. ticks: period of a timer, of the guest's clock.
    interrupts: 1: the monitor injects every interrupt. injections: 1: policies are asked about exceptions that the
    monitor injects.
    """

    def __init__(
        self,
        exceptions=0,
        msrs=(),
        primary=(),
        secondary=(),
        pages=(),
        rights=0,
        registers=(),
        fetches=False,
        ticks=0,
        interrupts=0,
        injections=0,
    ):
        self.exceptions = exceptions
        self.msrs = msrs
        self.primary = primary
        self.secondary = secondary
        self.pages = pages
        self.rights = rights
        self.registers = registers
        self.fetches = fetches
        self.ticks = ticks
        self.interrupts = interrupts
        self.injections = injections


class Event:
    """One kind of exit. The instance is the word that users write; str() of it is its name.

    name: as the user sees it. text: one line of help, with the SDM's section. reasons: its exit reasons. filters:
    vmm.policies.filters.Filter objects, the most used one first. plain: HANDLED and SKIP only advance RIP.
    repeats: the instruction exits again after resume(), where a policy has paused the guest.
    paged: its place was found through the guest's page tables, and the policy goes when the guest starts anew.
    levels: it tests the privilege level itself, cpl= too.
    tells: whether a line for the user says which policy has paused the guest, and where.
    """

    name = ""
    text = ""
    reasons = ()
    filters = ()
    plain = True
    repeats = True
    tells = True
    paged = False
    levels = False

    # quick(vcpu, numbers, handler) -> verdict: value() in viper, for the numbers at an address from vmx.numbers(); -1,
    # with nothing done, where value() has to be called.
    quick = staticmethod(unable)
    # quick_skip(vcpu) -> verdict: skip() in viper, likewise, for an event that is not plain.
    quick_skip = staticmethod(unable_to_skip)

    def quickly(self, vm):
        """Return (quick, quick_skip) for a policy of this VM."""
        return self.quick, self.quick_skip

    def check(self, chosen):
        """ValueError, in words for the user, unless the filters {name: value} make sense."""
        known = {f.name: f for f in self.filters + general.FILTERS}
        for name in chosen:
            if name not in known:
                has = ", ".join([f.name for f in self.filters + general.FILTERS])
                raise ValueError("%s has no filter %s=; it has %s" % (self.name, name, has))
            known[name].check(chosen[name])
        for f in self.filters:
            if f.required and f.name not in chosen:
                raise ValueError("a policy on %s names its %s=" % (self.name, f.name))
        general.check(chosen)

    def of(self, vm, chosen):
        """Return the Event for these filters in this VM: itself, or one that knows their place there. ValueError."""
        return self

    def chains(self, vm):
        """Return the Chain (vmm/policies/chain.py) of each of the event's exit reasons: a policy is a link of them."""
        return [vm.chain(reason) for reason in self.reasons]

    def keys(self, chosen):
        """The keys of the dispatch (Exits.keyed of its reason) that the filters name, as a list; None: any key."""
        return None

    def tests(self, chosen):
        """The filters as tests of words of the frame (vmm/policies/link.py); a list."""
        return []

    def narrower(self, chosen):
        """tests() for an exit with a key of keys(): without the tests that the key implies."""
        return self.tests(chosen)

    def task(self, vm, chosen):
        """The filters pid= and comm= (general.task)."""
        return general.task(vm, chosen)

    def wants(self, chosen):
        """Return ((reason, bits of frame.WANTS), ...): words beyond the handler's that its tests need."""
        return ()

    def accepts(self, chosen):
        """Return accepts(vcpu) -> bool for filters that cannot be tests of words; None: there are none."""
        return None

    def gate(self, vm):
        """Return (function, context, ...) for one more test: function(context, ..., link, below, vcpu) -> verdict, in
        viper, goes on to `link` or to `below`. None: there is none."""
        return None

    def needs(self, chosen):
        """Return the controls to arm for a policy with these filters: Needs."""
        return Needs()

    def value(self, vcpu, value, handler):
        """Carry out Value(value); returns a verdict. handler: the handler behind
        all policies. ValueError for a value that is not possible."""
        raise ValueError("%s has no value" % self.name)

    def skip(self, vcpu):
        """HANDLED or SKIP: advance past the instruction; returns a verdict."""
        return verdict.ADVANCE

    def behind(self, policy, below):
        """Return the handler for an exit that the called policy does not answer: below, or one that checks its work."""
        return below

    def again(self, vcpu):
        """RETRY: deliver the event again whose delivery the exit interrupted."""

    def stand(self, vcpu):
        """PAUSED: prepare the guest to stand still; as again() unless RIP or the pending event has to stay."""
        self.again(vcpu)

    def inject(self, vcpu):
        """Inject: undo what has to be undone before the exception is delivered."""

    def vectoring(self, vcpu):
        """Information on the event whose delivery the exit interrupted, 0 for none: an Inject is the second event."""
        return 0

    def __repr__(self):
        lines = ["%s: %s" % (self.name, self.text)]
        lines += ["    %s= %s%s" % (f.name, f.text, " (required)" if f.required else "") for f in self.filters]
        lines.append("    as every event: %s" % ", ".join([f.name + "=" for f in general.FILTERS]))
        return "\n".join(lines)

    def __str__(self):
        return self.name


class Instruction(Event):
    """An event of an instruction that reads or writes a number in registers."""

    def number(self, value):
        """ValueError unless a policy's Value is a number."""
        if not isinstance(value, int):
            raise ValueError("the value for %s is a number, not %r" % (self.name, value))
