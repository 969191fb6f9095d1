"""Watchpoints that no debug register has room for: by the rights of their pages (vmm/policies/events/memory.py).

The instruction that reaches a watched page is stepped with the page open; after it the bytes are compared, so that gdb
sees a write that has been done. Every access to the page exits. Addresses are translated when the watchpoint is set.
"""

from micropython import const

from vmm import verdict
from vmm.memory.ept import RWX
from vmm.policies.events import MEMORY
from vmm.policies.policy import decorator
from vmm.vtx.x86 import PAGE, PAGE_MASK

MOST = const(1 << 16)  # bytes of a watchpoint
_WIDEST = const(8)  # bytes of an access that begins before the watched ones and is taken to reach them


class PageWatch:
    """One watchpoint. reads: it stops at every access, not only at changes. hit(vcpu, gva): called at a hit."""

    def __init__(self, vm, gva, size, reads, translate, hit):
        """translate(gva) -> gpa. ValueError where a byte is not mapped, or there are too many."""
        if size > MOST:
            raise ValueError("a watchpoint has at most %d bytes" % MOST)
        self.vm = vm
        self.gva = gva
        self._size = size
        self._reads = reads
        self._hit = hit
        self._pieces = []  # [(gpa, size)]
        while size > 0:
            piece = min(size, PAGE - (gva & (PAGE - 1)))
            self._pieces.append((translate(gva), piece))
            gva += piece
            size -= piece
        self._before = None
        self._policies = []
        for gpa, piece in self._pieces:
            filters = {"gpa": gpa & PAGE_MASK, "length": PAGE, "access": "rw" if reads else "w"}
            self._policies.append(decorator(vm, MEMORY, filters, False)(self._access))

    def close(self):
        """Remove it."""
        for policy in self._policies:
            policy.detach()

    def _bytes(self):
        return b"".join([self.vm.memory.read(gpa, size) for gpa, size in self._pieces])

    def _access(self, vcpu):
        """Policy on accesses to one of the pages."""
        touched = self._reads and any([gpa - _WIDEST < vcpu.gpa < gpa + size for gpa, size in self._pieces])
        before = self._bytes()
        earlier = vcpu.stepper.then

        def done(completed):
            answer = earlier(completed) if earlier else verdict.RESUME
            if touched or self._bytes() != before:
                self._hit(vcpu, self.gva)
                answer |= verdict.YIELD
            return answer

        vcpu.stepper.step(vcpu.gpa & PAGE_MASK, RWX, done)
        return verdict.RETRY
