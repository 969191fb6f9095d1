"""Policies whose function runs on the host (pcanel.connect(), host-tools/pcanel/attach.py).

The event pauses its guest and is sent to the host through the mailbox; when the function has returned the host calls
go(). When a client ends, left() detaches its policies. Keys are the host's, one for each policy; those of a
client begin with its prefix.
"""

from vmm import verdict
from vmm.debug import mailbox
from vmm.policies import general
from vmm.policies.account import LEFT
from vmm.scheduling.states import PAUSED

_WHY = "by an event that the host looks at"
_NAMES = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "rip", "rflags",
)  # fmt: skip

_attached = {}  # {key: _HostPolicy}


class _HostPolicy:
    """A policy whose function runs on the host."""

    def __init__(self, vm, key, event, filters):
        self.vm = vm
        self.key = key
        self._left = general.limit(filters)
        self._over = False  # the last event that limit= allows has occurred
        self.policy = vm.on(event, **filters)(self._asked)
        self.policy.account.put(LEFT, 0)  # counted here: the policy is needed for the answer to the last one

    def _asked(self, vcpu):
        if self._over:
            return None
        vm = self.vm
        event = {
            "key": self.key, "guest": vm.name, "vcpu": vcpu.number, "event": self.policy.event.name,
            "registers": {name: getattr(vcpu, name) for name in _NAMES},
        }  # fmt: skip
        if not mailbox.tell(event):
            return None  # its client has ended: the guest is not paused
        if self._left:
            self._left -= 1
            self._over = not self._left
        vm.pause_quietly(_WHY)
        return verdict.PAUSED

    def go(self, answer):
        """The function has returned. answer: a verdict, or None."""
        policy, vm = self.policy, self.vm
        if answer is not None and answer != verdict.PAUSED:
            if policy.passes is None:
                raise ValueError("%s happens once: a function of the host cannot answer it" % policy.event.name)
            policy.reply = lambda: self._answer(answer)
        elif self._over:
            detach(self.key)
        if answer == verdict.PAUSED:
            vm.why = "by a function of the host"
        else:
            _resume(vm)

    def _answer(self, answer):
        if self._over:
            detach(self.key)
        return answer


def _resume(vm):
    if vm.state == PAUSED and vm.why == _WHY:
        vm.resume()


def attach(vm, key, event, filters):
    """Attach a policy that pauses the guest at an event and sends the event to the host."""
    _attached[key] = _HostPolicy(vm, key, event, filters)


def detach(key):
    """Detach such a policy."""
    found = _attached.pop(key, None)
    if found is not None:
        found.policy.detach()


def go(vm, key, answer=None):
    """Let a guest go on that waits for the host's answer to an event; its policy may have been detached meanwhile."""
    found = _attached.get(key)
    if found is None:
        _resume(vm)
        return
    try:
        found.go(answer)
    except ValueError:
        _resume(vm)
        raise


def left(prefix):
    """A client has ended: detach its policies and resume the guests that they have paused."""
    for key in [key for key in _attached if key.startswith(prefix)]:
        vm = _attached[key].vm
        detach(key)
        _resume(vm)
