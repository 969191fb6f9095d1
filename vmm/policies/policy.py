"""Policies: plain Python functions that answer a VM's events.

`vm.on(EVENT, **filter)` attaches one; the dispatch table's entry for that exit becomes a
Hook, which calls the policies whose key (leaf, MSR, port, page, ...) matches, in the order
of attachment, until one answers; else the default handler. Only the bits that the event
needs are armed, and detaching restores table and bits. A policy that raises, takes longer
than `limit_ms`, or takes more of the heap than `limit_kib` pauses its own guest; the instruction
that exited has then not been executed. One that catches its cpu.Timeout and loops on is ended a fifth of a
second later. Limit: a policy in a C function that never returns is not stopped.
"""

import gc

import cpu
import micropython
from micropython import const

from vmm import verdict
from vmm.policies import answers, quick
from vmm.policies.filters import ANY, EVENTS, accepts, check
from vmm.scheduling.accounting import heap_of_call
from vmm.vtx import events

LIMIT_MS = const(1000)
_MOST_PART = const(4)  # of the heap: what limit_kib may say
_RESERVE = const(0x10000)  # bytes: what the prompt gets back when a policy has filled the heap
_SPENT = "it wanted more than the %d KiB of heap that a call may take (limit_kib): "
_FULL = "the heap is nearly full: "
_ACCOUNT = quick.Account
_AGAIN = (0, 48)  # exits whose frame holds an interrupted event: exceptions, EPT violations


class Policy:
    """One attached function. detach() takes it off; hits and ticks (host TSC) tell its cost.

    limit_ms: longest that a call may take. limit_kib: how much of the heap.
    """

    def __init__(self, hook, function, keys, filters):
        self._hook = hook
        self.function = function
        self.keys = keys
        self.filters = filters
        self.event = hook.event
        self.account = _ACCOUNT()
        self.limit_ms = LIMIT_MS
        self.limit_kib = heap_of_call() >> 10
        self.attached = True
        self.passes = None

    @property
    def hits(self):
        """How often it was called."""
        return self.account.get(_ACCOUNT.HITS)

    @property
    def ticks(self):
        """Host TSC ticks that it took."""
        return self.account.get(_ACCOUNT.TICKS)

    @property
    def limit_ms(self):
        return self.account.get(_ACCOUNT.LIMIT) * 1000 // cpu.tsc_hz

    @limit_ms.setter
    def limit_ms(self, value):
        self.account.put(_ACCOUNT.LIMIT, cpu.tsc_hz * value // 1000)

    @property
    def limit_kib(self):
        return self.account.get(_ACCOUNT.HEAP) >> 10

    @limit_kib.setter
    def limit_kib(self, value):
        most = cpu.heap()[0] // _MOST_PART >> 10
        if not isinstance(value, int) or not 1 <= value <= most:
            raise ValueError("limit_kib %r: a number from 1 to %d" % (value, most))
        self.account.put(_ACCOUNT.HEAP, value << 10)

    @property
    def passes(self):
        """RIP at which it paused the guest: not asked again there; or None."""
        return self._passes

    @passes.setter
    def passes(self, rip):
        self._passes = rip
        self.account.put(_ACCOUNT.PASSES, 0 if rip is None else 1)

    @property
    def name(self):
        return getattr(self.function, "__name__", "?")

    def detach(self):
        """Take the policy off; the bits that only it needed are restored."""
        if self.attached:
            self.attached = False
            self._hook.remove(self)

    def call(self, vcpu):
        """The function's answer, within its time and its part of the heap."""
        self.account.add(_ACCOUNT.HITS, 1)
        start = cpu.rdtsc()
        cpu.watch(start + self.account.get(_ACCOUNT.LIMIT))
        try:
            return cpu.guard(self.function, vcpu, self.account.get(_ACCOUNT.HEAP))
        finally:
            cpu.watch(0)
            self.account.add(_ACCOUNT.TICKS, cpu.rdtsc() - start)

    def __repr__(self):
        filters = ", ".join(["%s=%s" % (name, _show(self.filters[name])) for name in sorted(self.filters)])
        return "<policy %s on %s(%s) of %s: %d hits%s>" % (
            self.name, self.event, filters, self._hook.vm.name, self.hits, "" if self.attached else ", detached",
        )  # fmt: skip


def _show(value):
    return "%#x" % value if isinstance(value, int) and not isinstance(value, bool) else repr(value)


class Hook:
    """Stands in the dispatch table for one event while policies are attached to it."""

    def __init__(self, vm, event):
        self.vm = vm
        self.event = event
        known = EVENTS[event]
        self.reason, self.word, self.shift, self.mask = known.reason, known.word, known.shift, known.mask
        self.default = vm.exits.default(self.reason)
        self.policies = []
        self.by_key = {}
        self.rest = []

    def add(self, policy):
        self.policies = self.policies + [policy]
        self._sort(policy.keys)
        self._install()

    def remove(self, policy):
        self.policies = _without(self.policies, policy)
        self.vm.policies = _without(self.vm.policies, policy)
        self.vm.arming.disarm(policy)
        self._sort(policy.keys)
        self._install()

    def _install(self):
        """Into the dispatch table: in front of the keys that policies name, or of the whole reason."""
        exits = self.vm.exits
        exits.override(self.reason, {})
        if not self.policies:
            exits.put(self.reason, self.default)
            return
        handlers = {}
        general = self.exit
        for key, found in self.by_key.items():
            keys = quick.keys_of(self.event, key, found)
            if keys is None or self.rest:
                handlers = None
                break
            for i, concerned in keys.items():
                handlers[i] = quick.handler(self, concerned) or general
        if self.rest or handlers is None or not exits.override(self.reason, handlers):
            exits.put(self.reason, general)  # all exits of the reason come by
        else:
            exits.put(self.reason, general, True)

    def _sort(self, keys):
        """New lists, since one of the old ones may be in use by ask()."""
        if ANY in keys:
            keys = list(self.by_key)
        for key in keys:
            named = False
            found = []
            for policy in self.policies:
                if key in policy.keys:
                    named = True
                    found.append(policy)
                elif ANY in policy.keys:
                    found.append(policy)
            if named:
                self.by_key[key] = found
            else:
                self.by_key.pop(key, None)
        self.rest = [policy for policy in self.policies if ANY in policy.keys]

    # An exit of this reason that no policy matches pays for this function only.
    @micropython.viper
    def exit(self, vcpu) -> int:
        """Handler: find the policies for this exit's key, or go on to the default."""
        f = ptr32(vcpu)
        word = int(self.word)
        value = uint(f[word]) | (uint(f[word + 1]) << 32)
        key = int(value >> uint(int(self.shift))) & int(self.mask)
        found = self.by_key.get(key, self.rest)
        if not found:
            return int(self.default(vcpu))
        return int(self.ask(vcpu, found))

    def ask(self, vcpu, policies):
        """Call policies until one answers; returns a verdict."""
        vm = self.vm
        starts = vm.starts
        for policy in policies:
            if not policy.attached or not accepts(self.event, policy.filters, vcpu):
                continue
            if policy.passes is not None and policy.passes == vcpu.rip:
                policy.passes = None
                continue
            try:
                answer = policy.call(vcpu)
                if vm.starts != starts:
                    return verdict.YIELD  # it has reset the guest: there is no exit any more
                if answer is None or answer == verdict.DEFAULT:
                    continue
                return self._apply(vcpu, policy, answer) | self._still()
            except BaseException as error:
                return self.broken(vcpu, policy, error)
        return self.default(vcpu) | self._still()

    def broken(self, vcpu, policy, error):
        """A call, or what was to be done with its answer, has failed: a verdict; Ctrl-C is raised again."""
        if isinstance(error, KeyboardInterrupt):
            self.vm.apply(self._failed(vcpu, policy, None))
            raise error
        return self._failed(vcpu, policy, error)

    def answered(self, vcpu, policy, answer, starts):
        """What quick.py leaves over: any answer, or what the function raised. starts: VM.starts before the call."""
        try:
            if isinstance(answer, BaseException):
                raise answer  # so that its traceback has a line, where C has raised it
            if self.vm.starts != starts:
                return verdict.YIELD
            if answer is None or answer == verdict.DEFAULT:
                return self.default(vcpu) | self._still()
            return self._apply(vcpu, policy, answer) | self._still()
        except BaseException as error:
            return self.broken(vcpu, policy, error)

    def _still(self):
        """A policy may have paused its guest, or switched it off."""
        return verdict.RESUME if self.vm.runs() else verdict.YIELD

    def _apply(self, vcpu, policy, answer):
        """Turn a policy's answer into the handler's verdict. TypeError, ValueError for nonsense."""
        if answer == verdict.HANDLED or answer == verdict.SKIP:
            return answers.skip(vcpu)
        if answer == verdict.RETRY:
            if self.reason in _AGAIN:
                answers.again(vcpu)
            return verdict.RESUME
        if answer == verdict.PAUSED:
            policy.passes = vcpu.rip
            self.vm.log("paused by policy %s on %s at rip %#x" % (policy.name, self.event, vcpu.rip))
            return self._pause(vcpu)
        if isinstance(answer, verdict.Inject):
            first = vcpu.vectoring_info if self.reason in _AGAIN else 0
            self.vm.stepper.reset()  # the handler is not stepped, and finds the guest's own flags
            return events.inject(vcpu, answer.vector, answer.error or 0, first)
        if isinstance(answer, verdict.Value):
            return answers.value(vcpu, self.event, answer.value, self.default)
        raise TypeError("a policy cannot answer %r" % (answer,))

    def _pause(self, vcpu):
        """The instruction stays to be executed, and an event in delivery to be delivered."""
        if self.reason in _AGAIN:
            answers.again(vcpu)
        return verdict.PAUSE

    def _failed(self, vcpu, policy, error):
        """Pause this guest and say why."""
        vm = self.vm
        why = ""
        if isinstance(error, MemoryError):
            why = cpu.refused()  # before anything else is called with a limit
            why = (_SPENT % policy.limit_kib if why == 1 else _FULL) if why else ""
            vm.monitor.reserve = None
            gc.collect()
        vm.log_error(
            "policy %s failed on %s of guest %s at rip %#x: %sthe guest is paused; detach() the policy, then resume()"
            % (policy.name, self.event, vm.name, vcpu.rip, why),
            error or KeyboardInterrupt(),
        )
        return self._pause(vcpu)


def _without(policies, policy):
    """A new list: somebody may be detaching one after the other in a loop over the old one."""
    return [other for other in policies if other is not policy]


def decorator(vm, event, filters):
    """What attaches a function to an event of `vm` and returns the Policy. ValueError, at once, for bad filters."""
    keys = check(event, filters)
    return lambda function: _attach(vm, event, function, filters, keys)


def _attach(vm, event, function, filters, keys):
    if isinstance(function, Policy):
        function = function.function
    if not callable(function):
        raise TypeError("a policy is a function of the vCPU, not %r" % (function,))
    if not vm.monitor.reserve:
        vm.monitor.reserve = bytearray(_RESERVE)
    hook = vm.hooks.get(event)
    if hook is None:
        hook = vm.hooks[event] = Hook(vm, event)
    policy = Policy(hook, function, keys, filters)
    vm.arming.arm(policy)
    hook.add(policy)
    vm.policies = vm.policies + [policy]
    return policy
