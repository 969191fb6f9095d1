"""A Linux whose text, IDT, GDT and system call table are guarded, and that loads no more modules.

    from vmm.recipes import guard
    g = guard.kernel(vms['linux'])         # writes are dropped and noted
    g = guard.kernel(vms['linux'], allow=True)    # they happen, and are noted
    p = guard.modules(vms['linux'])        # init_module and finit_module are EPERM; p.hits, p.detach()
    g                                      # what was written, by what code; g.stop()

Pages are guarded by their guest-physical address, whatever linear address is used. Linux patches its own text
(static keys, ftrace, kprobes), by a mapping of its own, and crashes where that is dropped: then use allow=True
or text=False. Its GDT has descriptors of each program (TLS) and the TSS, which are left out. A write to a guarded page
outside the guarded bytes takes some 3,000 ticks.
"""

from micropython import const

from vmm.insight.linux import values
from vmm.insight.table import Table
from vmm.policies.events.memory import MEMORY
from vmm.policies.events.syscall import SYSCALL
from vmm.verdict import HANDLED, Value

MOST = const(200)  # rows
_SHOWN = const(20)
_COLUMNS = "part", "written", "symbol", "times", "rip", "by"
_LOADS = ("init_module", "finit_module")
_GDT = (0, 64), (120, 8)  # (offset, bytes): code and data, and the descriptor that holds the CPU's number
_ENTRY = const(8)


class Guard:
    """rows: [part, gva, writes, RIP], of the last MOST; writes of one instruction that follow one another are one row.

    policies: one for each part.
    """

    def __init__(self, vm, allow):
        self.vm = vm
        self.rows = []
        self.policies = []
        self._answer = None if allow else HANDLED

    def watch(self, part, gva, size):
        """Guard [gva, gva + size) of the kernel as well. The range is contiguous in guest-physical memory."""
        gpa = self.vm.kernel.space.translate(gva)
        attach = self.vm.on(MEMORY, gpa=gpa, length=size, access="w")

        def guards(vcpu):
            return self._written(part, gva + vcpu.gpa - gpa, vcpu.rip)

        self.policies.append(attach(guards))

    def _written(self, part, gva, rip):
        last = self.rows[-1] if self.rows else None
        if last and last[0] == part and last[3] == rip and last[1] < gva <= last[1] + last[2] * _ENTRY:
            last[2] += 1
        else:
            self.rows.append([part, gva, 1, rip])
            del self.rows[:-MOST]
        return self._answer

    def stop(self):
        """Guard no longer; what was noted stays."""
        for policy in self.policies:
            policy.detach()

    def __repr__(self):
        if not self.rows:
            return "no write yet"
        name = self.vm.symbols.at
        rows = [
            (part, "%#x" % gva, name(gva) or "", times, "%#x" % rip, name(rip) or "")
            for part, gva, times, rip in self.rows[-_SHOWN:]
        ]
        return repr(Table(_COLUMNS, rows))


def kernel(vm, allow=False, text=True):
    """Guard a running Linux; returns the Guard. text: its code, too. ValueError where there is no Linux."""
    symbols = vm.kernel.symbols
    guard = Guard(vm, allow)
    try:
        for part in ("sys_call_table", "idt_table"):
            _, start, end = symbols.around(symbols[part])
            guard.watch(part, start, (end or start + _ENTRY) - start)
        for number in range(len(vm.vcpus)):
            page = vm.kernel.per_cpu("gdt_page", number).gva_
            for offset, size in _GDT:
                guard.watch("GDT of CPU %d" % number, page + offset, size)
        if text:
            guard.watch("text", symbols["_stext"], symbols["_etext"] - symbols["_stext"])
    except BaseException:
        guard.stop()
        raise
    return guard


def modules(vm):
    """Refuse to load modules from now on: init_module and finit_module return EPERM; returns the policy."""
    answer = Value(-values.number_of("EPERM"))

    def refuses(vcpu):
        return answer

    return vm.on(SYSCALL, number=_LOADS)(refuses)
