"""Policies: plain Python functions that answer a VM's events.

`vm.on(EVENT, **filter)` attaches one: it stands in the dispatch table in front of the handlers of the exits that it
names (chain.py). Only the bits that the event needs are armed, and detaching restores table and bits. A policy that
raises, takes longer than `limit_ms`, or takes more of the heap than `limit_kib` pauses its own guest; the instruction
that exited has then not been executed. One that catches its cpu.Timeout and loops on is ended 150 ms later.
Limit: a policy in a C function that never returns is not stopped.
"""

import gc

import cpu
from micropython import const

from vmm import verdict
from vmm.policies import events, general, link
from vmm.policies.account import (
    CALL_COUNT,
    CALL_HEAP,
    CALL_LIMIT,
    CALL_TICKS,
    DETACHED,
    EVERY,
    FLAGS,
    LAST,
    LEFT,
    PASSES,
    PLAIN,
    Account,
)
from vmm.scheduling.accounting import heap_of_call
from vmm.vtx import events as injection

LIMIT_MS = const(1000)
_MOST_PART = const(4)  # part of the heap: upper bound of limit_kib
_DECIMAL = "pid", "size", "length", "ticks", "every", "limit"  # filters
_RESERVE = const(0x10000)  # bytes, freed for the prompt when a policy has filled the heap


_SPENT = "it needed more than the %d KiB of heap that a call may take (limit_kib): "
_FULL = "the heap is nearly full: "


class Policy:
    """One attached function. detach() removes it; hits and ticks (host TSC) are its calls and their cost.

    For users: attached, detach, event, filters, function, hits, limit_kib, limit_ms, name, ticks, vm.

    limit_ms: longest that a call may take. limit_kib: how much of the heap.
    """

    def __init__(self, vm, event, function, filters):
        self.vm = vm
        self.event = event
        self.function = function
        self.record = getattr(function, "record", None)  # viper that is called in place of the function (link.py)
        self.filters = filters
        self.quick, self.quick_skip = event.quickly(vm)
        self.needs = event.needs(filters)
        self.keys = event.keys(filters)
        self.tests = link.compiled(event.tests(filters) + general.tests(event, filters))
        self.narrower = link.compiled(event.narrower(filters) + general.tests(event, filters))
        self.account = Account()
        self.account.put(PLAIN, int(event.plain))
        self.account.put(EVERY, filters.get("every", 0))
        self.account.put(LEFT, general.limit(filters))
        self.gate = event.gate(vm)
        self.counts = "every" in filters or bool(general.limit(filters))
        self.task = event.task(vm, filters)
        narrow = getattr(function, "narrow", None)  # narrow(task) -> task, where a function knows more of its tasks
        if narrow is not None and self.task is not None:
            self.task = narrow(self.task)
        self.condition = general.condition(event, filters)
        self.condition_account = None if self.condition is None else Account()
        self.limit_ms = LIMIT_MS
        self.limit_kib = heap_of_call() >> 10
        self.attached = False
        self.listed = True  # in vm.policies
        self.passes = None
        self.reply = None  # reply(): its late answer at the exit that it passes
        self._chains = ()
        self._wants = general.wants(event, filters) + event.wants(filters) + getattr(function, "wants", ())
        self._succeeded = True

    @property
    def hits(self):
        """How often it was called."""
        return self.account.get(CALL_COUNT)

    @property
    def ticks(self):
        """Host TSC ticks that it took."""
        return sum([account.get(CALL_TICKS) for account in self._accounts()])

    @property
    def limit_ms(self):
        """The longest that a call may take, in ms; it can be set."""
        return self.account.get(CALL_LIMIT) * 1000 // cpu.tsc_hz

    @limit_ms.setter
    def limit_ms(self, value):
        for account in self._accounts():
            account.put(CALL_LIMIT, cpu.tsc_hz * value // 1000)

    @property
    def limit_kib(self):
        """How much of the heap a call may take, in KiB; it can be set."""
        return self.account.get(CALL_HEAP) >> 10

    @limit_kib.setter
    def limit_kib(self, value):
        most = cpu.heap()[0] // _MOST_PART >> 10
        if not isinstance(value, int) or not 1 <= value <= most:
            raise ValueError("limit_kib %r: a number from 1 to %d" % (value, most))
        for account in self._accounts():
            account.put(CALL_HEAP, value << 10)

    def _accounts(self):
        """The accounts of the function, and of its condition where there is one."""
        return [account for account in (self.account, self.condition_account) if account is not None]

    @property
    def passes(self):
        """RIP at which it paused the guest and is not called again; or None."""
        return self._passes

    @passes.setter
    def passes(self, rip):
        self._passes = rip
        for account in self._accounts():
            account.flag(PASSES, rip is not None)

    @property
    def name(self):
        """The function's name."""
        return getattr(self.function, "__name__", "?")

    def attach(self):
        """Arm what the policy needs and enter it in the dispatch table; both, or neither and an exception."""
        vm = self.vm
        vm.arming.arm(self)
        for reason, bits in self._wants:
            vm.exits.want(reason, bits, 1)
        try:
            self._chains = self.event.chains(vm)
            for chain in self._chains:
                chain.add(self)
            if self.listed:
                vm.policies = vm.policies + [self]
            self.attached = True
        except BaseException:
            self._remove()
            raise

    def detach(self):
        """Remove the policy; the bits that only it needed are restored."""
        if self.attached:
            self.attached = False
            self.account.flag(DETACHED, True)
            self.vm.steadily(cpu.shield, self._remove)

    def _remove(self):
        vm = self.vm
        vm.policies = [other for other in vm.policies if other is not self]  # a loop over the old list stays valid
        for chain in self._chains:
            chain.remove(self)
        for reason, bits in self._wants:
            vm.exits.want(reason, bits, -1)
        vm.arming.disarm(self)

    # -- at an exit: the slow paths of link.py

    def ask(self, vcpu, below, handler):
        """link.ask where FLAGS demands more checks; returns a verdict."""
        if not self.attached:
            return below(vcpu)
        if self.passes is not None and self.passes == vcpu.rip:
            self.passes = None
            reply, self.reply = self.reply, None
            if reply is None:
                return below(vcpu)
            return self.finish(vcpu, reply(), below, handler, self.vm.starts)
        last = self.account.get(FLAGS) & LAST
        self.account.flag(LAST, False)
        self._succeeded = True
        starts = self.vm.starts
        answer = cpu.limited(self.function, vcpu, self.account.address)
        done = self.finish(vcpu, answer, below, handler, starts)
        if last and self._succeeded:
            self.detach()
        elif last:
            self.account.put(LEFT, 1)  # it is asked again for the same exit
        return done

    def judge(self, vcpu, answer, link, below, starts):
        """link.conditional where the condition's answer is neither True nor False; returns a verdict."""
        try:
            if isinstance(answer, BaseException):
                raise answer
            if self.vm.starts != starts:
                return verdict.YIELD
            done = link(vcpu) if answer else below(vcpu)
            return done if self.vm.runs(vcpu) else done | verdict.YIELD
        except BaseException as error:
            return self.broken(vcpu, error)

    def finish(self, vcpu, answer, below, handler, starts):
        """Carry out an answer, or handle an exception that the function raised; returns a verdict.

        below, handler: called after no answer, and the handler behind all policies. starts: VM.starts before the call.
        """
        try:
            if isinstance(answer, BaseException):
                raise answer  # so that its traceback has a line, where C has raised it
            if self.vm.starts != starts:
                return verdict.YIELD  # it has reset the guest: the exit is obsolete
            if answer is None or answer == verdict.DEFAULT:
                done = below(vcpu)
            else:
                done = self._apply(vcpu, answer, handler)
            return done if self.vm.runs(vcpu) else done | verdict.YIELD  # it may have paused it, or switched it off
        except BaseException as error:
            return self.broken(vcpu, error)

    def broken(self, vcpu, error):
        """Pause the guest for an exception that a call has raised; Ctrl-C is raised at the prompt, too."""
        self._succeeded = False
        if isinstance(error, KeyboardInterrupt):
            self.vm.apply(self._failed(vcpu, None), vcpu)
            raise error
        return self._failed(vcpu, error)

    def _apply(self, vcpu, answer, handler):
        """Turn an answer into the handler's verdict. TypeError, ValueError for an invalid one."""
        event = self.event
        if answer == verdict.HANDLED or answer == verdict.SKIP:
            return event.skip(vcpu)
        if answer == verdict.RETRY:
            event.again(vcpu)
            return verdict.RESUME
        if answer == verdict.PAUSED:
            if event.repeats:
                self.passes = vcpu.rip
            if event.tells and not self.vm.silent:
                place = "%#x%s" % (vcpu.rip, self.vm.name_of(vcpu.rip))
                self.vm.log("paused by policy %s on %s at rip %s" % (self.name, event.name, place))
            event.stand(vcpu)
            return verdict.PAUSE
        if isinstance(answer, verdict.Inject):
            first = event.vectoring(vcpu)
            event.inject(vcpu)
            vcpu.stepper.reset()  # the guest's handler is not stepped, and finds the guest's own flags
            return injection.inject(vcpu, answer.vector, answer.error or 0, first)
        if isinstance(answer, verdict.Value):
            return event.value(vcpu, answer.value, handler)
        raise TypeError("a policy cannot answer %r" % (answer,))

    def _failed(self, vcpu, error):
        """Pause this guest and report why. The instruction, or an interrupted delivery, is still to be done."""
        vm = self.vm
        why = ""
        if isinstance(error, MemoryError):
            why = cpu.refused()  # before any other call with a limit
            why = (_SPENT % self.limit_kib if why == 1 else _FULL) if why else ""
            vm.monitor.reserve = None
            gc.collect()
        vm.log_error(
            "policy %s failed on %s of guest %s at rip %#x%s: %sthe guest is paused; detach() the policy, then resume()"
            % (self.name, self.event.name, vm.name, vcpu.rip, vm.name_of(vcpu.rip), why),
            error or KeyboardInterrupt(),
        )
        vm.failing("policy %s failed on %s" % (self.name, self.event.name))
        self.event.again(vcpu)
        return verdict.PAUSE

    def __repr__(self):
        filters = ", ".join(show(self.filters))
        return "<policy %s on %s(%s) of %s: %d hits%s>" % (
            self.name, self.event.name, filters, self.vm.name, self.hits, "" if self.attached else ", detached",
        )  # fmt: skip


class Recorder:
    """The function that a part of the monitor attaches to an event: record(vcpu) is called, and answers nothing.

    wants: words of the frame that it reads, as Event.wants() returns them. narrow: as in Policy.
    """

    def __init__(self, name, record, wants=(), narrow=None):
        self.__name__ = name
        self.record = record
        self.wants = wants
        self.narrow = narrow

    def __call__(self, vcpu):
        self.record(vcpu)


def show(filters):
    """Filters as they are printed, a list of texts. What is counted is decimal, other numbers are hexadecimal."""
    texts = []
    for name in sorted(filters):
        value = filters[name]
        if callable(value):
            text = getattr(value, "__name__", "?")
        elif isinstance(value, int) and not isinstance(value, bool) and name not in _DECIMAL:
            text = "%#x" % value
        else:
            text = repr(value)
        texts.append("%s=%s" % (name, text))
    return texts


def decorator(vm, event, filters, listed=True):
    """Return the decorator that attaches a function to an event of `vm`. ValueError at once for bad filters.

    listed: whether it is in vm.policies; those of the monitor's own parts are not.
    """
    event = events.find(event)
    event.check(filters)
    event = event.of(vm, filters)
    vm.arming.check(event, event.needs(filters))
    return lambda function: attach(vm, event, function, filters, listed)


def attach(vm, event, function, filters, listed=True):
    """Attach a function to an event for vm.on(), or for a part of the monitor (listed=False); returns the Policy."""
    if isinstance(function, Policy):
        function = function.function
    if not callable(function):
        raise TypeError("a policy is a function of the vCPU, not %r" % (function,))
    if not vm.monitor.reserve:
        vm.monitor.reserve = bytearray(_RESERVE)
    policy = Policy(vm, event, function, filters)
    policy.listed = listed
    vm.steadily(cpu.shield, policy.attach)
    return policy


def restarted(vm):
    """Detach what was found through the page tables of a guest that starts anew: they are gone."""
    for policy in vm.policies:
        if policy.event.paged:
            policy.detach()
            vm.log("policy %s on %s is detached: the guest starts anew" % (policy.name, policy.event.name))
    vm.arming.restarted()
