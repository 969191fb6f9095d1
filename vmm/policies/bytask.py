"""Controls that a policy needs only while one process runs: the costly controls of events that pid= or comm= narrow.

These are controls of exits that every program causes again and again: single steps, RDTSC, moves to and from CR3,
INVLPG, page faults. At each switch of tasks, found by a hidden breakpoint as event SWITCH finds it, and where Linux
changes the name of a task, a vCPU's controls become those of the policies whose task it runs now; so other tasks do not
exit. Threads of a process and kernel threads are tasks as any other. The switch is seen at the first function that runs
on behalf of the next task: the few instructions of that task before it do not exit.

Until Linux is known, while it boots say, no task has a name and nothing is armed; Linux is looked for every _POLL_MS.
Where the kernel is known but its switch is not found, or where a breakpoint there would step the whole page, the
controls are armed for all tasks.
"""

from array import array

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.fault import PF
from vmm.policies.events.breakpoint import BREAKPOINT
from vmm.policies.events.call import RETURN
from vmm.policies.events.switch import place
from vmm.policies.events.time import TIME
from vmm.policies.policy import Recorder, attach
from vmm.vtx import frame
from vmm.vtx.frame import DIRTY, DIRTY_CONTROLS

# Primary processor-based controls by their names (vmm/vtx/controls.py)
CONTROLS = ("MONITOR_TRAP_FLAG", "RDTSC_EXITING", "CR3_LOAD_EXITING", "CR3_STORE_EXITING", "INVLPG_EXITING")
EXCEPTIONS = 1 << PF
_RENAMES = "__set_task_comm"  # Linux, fs/exec.c: called for each change of a task's name
_POLL_MS = const(20)

# Words: the controls that are needed whichever task runs, the number of handlers in _asks, then of each vCPU the
# controls and the exceptions that are needed now.
_ALWAYS = const(0)
_COUNT = const(1)
_VCPUS = const(2)
_FRAME_CONTROLS = const(frame.CONTROLS)


class ByTask:
    """The controls by task of one VM. controls, exceptions: those that any policy needs."""

    def __init__(self, arming, vm, always):
        """always: primary controls that are needed whichever task runs."""
        self._vm = vm
        self._words = array("I", [always, 0] + [0, 0] * len(vm.vcpus))
        self._asks = []  # handlers that return what a policy needs now: controls, and exceptions << 32
        self._users = []  # (policy, controls, exceptions), in the same order
        self._points = []  # policies of our own that see switches and names, or the time
        self._renamed = False  # they see names, too
        self._all = False  # the switch is not found
        self._settle = bind(_settle, uctypes.addressof(self._words), self._asks, arming.own_exceptions)
        self.controls = self.exceptions = 0

    def own_controls(self, vcpu):
        """The controls that a vCPU needs now, for the task that it runs."""
        return self._words[_VCPUS + 2 * vcpu.number]

    def own_exceptions(self, vcpu):
        """The exceptions that a vCPU needs now: bits of the exception bitmap."""
        return self._words[_VCPUS + 2 * vcpu.number + 1]

    def always(self, controls):
        """Set the primary controls that are needed whichever task runs."""
        self._words[_ALWAYS] = controls

    def add(self, policy, controls, exceptions):
        """Arm these for a policy while its task runs."""
        self._users.append((policy, controls, exceptions))
        try:
            self._changed()
            if not self._points or self._renames() != self._renamed:
                self._watch()
        except BaseException:
            self.remove(policy)
            raise

    def remove(self, policy):
        """Remove a policy; what only it needed is disarmed."""
        self._users = [user for user in self._users if user[0] is not policy]
        self._changed()
        if not self._users or self._renames() != self._renamed:
            self._watch()

    def _changed(self):
        """Compute anew what each vCPU needs."""
        self.controls = self.exceptions = 0
        asks = []
        for policy, controls, exceptions in self._users:
            self.controls |= controls
            self.exceptions |= exceptions
            needs = bind(_needs, controls | exceptions << 32)
            asks.append(needs if self._all else policy.task(needs, _none))
        self._words[_COUNT] = 0
        self._asks[:] = asks
        self._words[_COUNT] = len(asks)
        self._settle_all()

    def _settle_all(self, vcpu=None):
        """Settle all vCPUs. Also the record at a change of a task's name: another vCPU may run that task."""
        vm = self._vm
        if self._points and vm.hidden.quick is not None:
            vm.hidden.quick.abandon()
        for vcpu in vm.vcpus:
            vcpu.stepper.reset()  # it has set controls
            self._settle(vcpu)

    def _renames(self):
        """Whether the names of tasks matter."""
        return any(["comm" in policy.filters for policy, _, _ in self._users])

    def _watch(self, known=True):
        """Watch switches, and names where they matter; until Linux is known, the time; without policies nothing.

        known: whether Linux may be known; False after a start.
        """
        points, self._points = self._points, []
        for point in points:
            point.detach()
        if not self._users:
            return
        self._renamed = self._renames()
        vm = self._vm
        try:
            if known and self._known():
                self._see_switches(vm.kernel)
            else:
                self._point(TIME, self._poll, {"ticks": cpu.tsc_hz // 1000 * _POLL_MS})
        except BaseException:
            for point in self._points:
                point.detach()
            self._points = []
            raise

    def _known(self):
        from vmm.insight.linux import current

        return self._vm.powered and current.of(self._vm).known()

    def _see_switches(self, kernel):
        try:
            switch = None if self._vm.hidden.fetched is not None else kernel.space.translate(place(kernel))
        except (ValueError, KeyError):
            switch = None
        if switch is None:
            self._everything(True)
            return
        self._point(BREAKPOINT.at(switch, True), self._settle)
        gva = kernel.symbols.get(_RENAMES) if self._renamed else None
        if gva is not None:
            self._point(RETURN.at(kernel.space.translate(gva), True), self._settle_all)

    def _everything(self, on):
        if self._all != on:
            self._all = on
            self._changed()

    def _point(self, event, record, filters=None):
        self._points.append(attach(self._vm, event, Recorder("by task", record), filters or {}, False))

    def _poll(self, vcpu):
        """Watch switches once Linux is known."""
        if self._known():
            self._watch()
            self._settle_all()

    def restarted(self):
        """Adapt to a guest that starts anew: its tasks are gone, and so is the breakpoint at the switch."""
        if self._users:
            self._everything(False)
            self._watch(False)
            self._settle_all()


def _none(vcpu):
    """Another task: nothing is needed."""
    return 0


@micropython.viper
def _needs(controls: int, vcpu) -> int:
    return controls


@micropython.viper
def _settle(words: int, asks, own_exceptions, vcpu):
    """Set a vCPU's controls and exceptions to what its current task needs."""
    w = ptr32(words)
    f = ptr32(vcpu)
    i = 0
    needs = 0
    while i < int(w[_COUNT]):
        needs |= int(asks[i](vcpu))
        i += 1
    at = 2 * int(vcpu.number) + _VCPUS
    before = int(w[at])
    controls = needs & 0xFFFFFFFF
    if before != controls:
        w[at] = controls
        f[_FRAME_CONTROLS] = int(f[_FRAME_CONTROLS]) & (0xFFFFFFFF ^ before | int(w[_ALWAYS])) | controls
        f[DIRTY] |= DIRTY_CONTROLS
    if int(w[at + 1]) != needs >> 32:
        w[at + 1] = needs >> 32
        own_exceptions(vcpu)
