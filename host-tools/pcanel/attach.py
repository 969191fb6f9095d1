"""pcanel.connect(): a running monitor as an object of Python on the host, with the words of the prompt.

    import pcanel
    monitor = pcanel.connect()               # the only run there is, or connect("0007")
    vm = monitor.vms["linux"]
    print(vm.state, vm.symbols["do_sys_openat2"])
    with vm.still():                         # it stands still, and drgn sees it
        print(vm.prog["init_task"].comm)

    @vm.break_at("do_sys_openat2")           # a function of the host; the guest waits for it
    def opened(event):
        print(event.thread.comm, event.vm.prog.stack_trace(event.thread))

    monitor.wait(10)                         # functions run here, for ten seconds

An event pauses its guest, travels to the host, and the guest goes on when the function returns: some 30 ms and more
each. Code in a string runs on the monitor: monitor.run("..."), event.run("vcpu.rax = 0"). What the function returns is
None, or its answer in the words of the prompt: "Value(5)", "HANDLED", "Inject(13, 0)", "PAUSED".
"""

import contextlib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from pcanel.client import Client, Events
from pcanel.errors import InputError, PcanelError
from pcanel.monitor import BOOT_TIMEOUT
from pcanel.ram import served
from pcanel.ram.guest import Cached, Facts, ask, check_name, held, watched
from pcanel.repl import RemoteError
from pcanel.runs import find

_POLICIES = "__import__('vmm.debug.hostpolicy', None, None, ['attach'])"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESUME_TIMEOUT = 30  # seconds


def connect(run: str | None = None) -> "Remote":
    """The monitor that `pcanel run` started: the run named, or the only one. Raises PcanelError."""
    found = find(run)
    found.wait_booted(BOOT_TIMEOUT)
    return Remote(found)


class Remote:
    """A running monitor. vms: its guests by name."""

    def __init__(self, run):
        self._run = run
        self._client = Client(run)
        self._prefix = f"{os.getpid()}.{id(self):x}."
        self._keys = itertools.count()
        self._events: Events | None = None
        self._policies: dict[str, HostPolicy] = {}
        self.vms = RemoteVms(self)

    def run(self, code: str, timeout: float = 60) -> str:
        """Runs code on the monitor; the repr of an expression's value. RemoteError has its traceback."""
        return self._client.run(code, timeout)

    def evaluate(self, expression: str, timeout: float = 60) -> Any:
        """The value of an expression on the monitor, where its repr is a literal."""
        return self._client.evaluate(expression, timeout)

    def memory(self):
        """The machine's memory (pcanel.ram.map.Ram); the caller closes it."""
        return served.connect(self._run.path)

    def attach(self, vm: "RemoteVm", event: str, filters: dict, function: Callable) -> "HostPolicy":
        """A policy whose function runs on the host."""
        if self._events is None:
            self._events = self._client.events(self._prefix)
        key = f"{self._prefix}{next(self._keys)}"
        self.run(f"{_POLICIES}.attach({vm.words}, {key!r}, {event.lower()!r}, {filters!r})")
        self._policies[key] = HostPolicy(vm, key, event, function)
        return self._policies[key]

    def detach(self, key: str) -> None:
        """Detaches a policy; events that were received and not served yet are dropped."""
        if self._policies.pop(key, None):
            self.run(f"{_POLICIES}.detach({key!r})")

    def wait(self, seconds: float | None = None, until: Callable[[], Any] = lambda: False) -> None:
        """Serves events for so long, None: for ever, or until until() is true."""
        end = None if seconds is None else time.monotonic() + seconds
        while not until():
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return
            if self._events is None:
                raise InputError("nothing is attached that could be waited for")
            said = self._events.next(left)
            if said:
                self._serve(said)

    def _serve(self, said: dict) -> None:
        policy = self._policies.get(said["key"])
        vm = policy.vm if policy else self.vms[said["guest"]]
        vm.forget()
        answer = None
        try:
            if policy:
                answer = policy.call(Event(vm, said))
        finally:
            vm.forget()
            self._go(vm, said["key"], answer)

    def _go(self, vm: "RemoteVm", key: str, answer: str | None) -> None:
        """Lets the guest go on, also where the monitor refuses the answer."""
        go = f"{_POLICIES}.go({vm.words}, {key!r}"
        try:
            self.run(f"{go}, {answer})", _RESUME_TIMEOUT)
        except RemoteError:
            self.run(f"{go})", _RESUME_TIMEOUT)
            raise

    def close(self) -> None:
        """Takes the policies off; the run goes on."""
        if self._events:
            self._events.close()
        self._client.close()

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, *_exception) -> None:
        self.close()


class RemoteVms:
    """monitor.vms: names, and vms[name]."""

    def __init__(self, remote: Remote):
        self._remote = remote
        self._known: dict[str, RemoteVm] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._remote.evaluate("sorted(vms)"))

    def __getitem__(self, name: str) -> "RemoteVm":
        if name not in self._remote.evaluate("sorted(vms)"):
            raise KeyError(f"there is no guest {name}")
        return self._known.setdefault(name, RemoteVm(self._remote, name))

    def __repr__(self) -> str:
        return self._remote.evaluate("repr(vms)")


class HostPolicy:
    """A function of the host that is attached to an event. hits: how often it was called; detach() takes it off."""

    def __init__(self, vm: "RemoteVm", key: str, event: str, function: Callable[["Event"], str | None]):
        self.vm = vm
        self.event = event
        self.function = function
        self.hits = 0
        self._key = key

    def call(self, event: "Event") -> str | None:
        """Its answer. InputError: it is neither None nor a text."""
        self.hits += 1
        answer = self.function(event)
        if answer is not None and not isinstance(answer, str):
            raise InputError(f'a function of the host answers None or a text such as "Value(5)", not {answer!r}')
        return answer

    def detach(self) -> None:
        self.vm.remote.detach(self._key)


class Event:
    """What has happened. vm; vcpu: its number; rip; registers: a dict; kind: the event's name."""

    def __init__(self, vm: "RemoteVm", said: dict):
        self.vm = vm
        self.vcpu: int = said["vcpu"]
        self.registers: dict[str, int] = said["registers"]
        self.kind: str = said["event"]
        self._words = f"{vm.words}.vcpus[{self.vcpu}]"

    @property
    def rip(self) -> int:
        return self.registers["rip"]

    @property
    def thread(self):
        """The task that the vCPU runs, a drgn struct task_struct *."""
        from drgn.helpers.linux.sched import cpu_curr

        return cpu_curr(self.vm.prog, self.vcpu)

    def object(self, type: str, value: int):
        """A drgn object: what a register or an argument is, such as "struct file *"."""
        import drgn

        return drgn.Object(self.vm.prog, type, value=value)

    def argument(self, index: int, type: str = "unsigned long"):
        """The argument of a function that has just been entered, from 0, as a drgn object of this type."""
        return self.object(type, self.vm.remote.evaluate(f"{self._words}.args[{index:d}]"))

    def run(self, code: str) -> str:
        """Runs code on the monitor, in which `vm` and `vcpu` are this event's."""
        lines = [f"vm = {self.vm.words}", f"vcpu = {self._words}", *code.split("\n")]
        return self.vm.remote.run("def _event():\n" + "".join(f" {line}\n" for line in lines) + "_event()\ndel _event")

    def register(self, name: str) -> int:
        """A register of the vCPU by its name at the prompt, such as "cr3"; `registers` has the general ones."""
        if not _NAME.fullmatch(name):
            raise InputError(f"{name!r} is no register")
        return self.vm.remote.evaluate(f"{self._words}.{name}")


class RemoteVm:
    """A guest. Other attributes are read from the monitor: vm.state, vm.symbols["name"], vm.pause()."""

    def __init__(self, remote: Remote, name: str):
        self.remote = remote
        self.name = name
        self.words = f"vms[{check_name(name)!r}]"
        self._ram = None
        self._cached: Cached | None = None
        self._prog = None

    @property
    def state(self) -> str:
        return self.remote.evaluate(f"{self.words}.state")

    def pause(self) -> None:
        self.remote.run(f"{self.words}.pause()")
        self.forget()

    def resume(self) -> None:
        self.forget()
        self.remote.run(f"{self.words}.resume()")

    @property
    def symbols(self) -> "RemoteSymbols":
        return RemoteSymbols(self)

    @contextlib.contextmanager
    def still(self) -> Iterator["RemoteVm"]:
        """It stands still meanwhile, so that what is read agrees."""
        with held(self.remote.evaluate, self.name):
            self.forget()
            try:
                yield self
            finally:
                self.forget()

    def facts(self) -> Facts:
        """Where its memory lies, registers, VMCOREINFO."""
        return ask(self.remote.evaluate, self.name)

    @property
    def memory(self) -> Cached:
        """read(gpa, size). Pages are kept until the guest runs again, as far as this object knows."""
        if self._cached is None:
            if self._ram is None:
                self._ram = self.remote.memory()
            self._cached = Cached(watched(self._ram, self.facts(), still=False))
        return self._cached

    @property
    def prog(self):
        """The guest as a drgn.Program: in still(), while it is paused, and in functions that events call."""
        if self._prog is None:
            from pcanel.kernel.program import program

            self._prog = program(self.facts(), self.memory)
        return self._prog

    def forget(self) -> None:
        """The guest has run: what was read of it is old."""
        self._cached = None
        self._prog = None

    def on(self, event: str, **filters) -> Callable[[Callable[["Event"], str | None]], "HostPolicy"]:
        """Decorator: a function of the host for an event of the guest, with the prompt's events and filters."""
        return lambda function: self.remote.attach(self, event, filters, function)

    def break_at(self, where: str | int, **filters) -> Callable[[Callable[["Event"], str | None]], "HostPolicy"]:
        """Decorator: a function of the host for each arrival at a symbol or an address."""
        return self.on("CALL", at=where, **filters)

    def watch(self, where: str | int, size: int = 8, **filters) -> Callable:
        """Decorator: a function of the host for each write to these bytes."""
        return self.on("WRITE", at=where, size=size, **filters)

    def __repr__(self) -> str:
        return self.remote.evaluate(f"repr({self.words})")


class RemoteSymbols:
    """symbols[name], symbols.at(gva), as at the prompt."""

    def __init__(self, vm: RemoteVm):
        self._vm = vm

    def __getitem__(self, name: str) -> int:
        try:
            return self._vm.remote.evaluate(f"{self._vm.words}.symbols[{name!r}]")
        except PcanelError as error:
            raise KeyError(str(error).splitlines()[-1]) from error

    def at(self, gva: int) -> str | None:
        """The name of an address."""
        return self._vm.remote.evaluate(f"{self._vm.words}.symbols.at({gva})")
