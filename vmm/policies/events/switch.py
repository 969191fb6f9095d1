"""Process switches: of Linux by a hidden breakpoint behind its switch, of other systems by writes of CR3."""

from vmm.loaders.state import GPRS
from vmm.memory.paging import ADDRESS
from vmm.policies.events.call import Call
from vmm.policies.events.cr import Cr
from vmm.policies.filters import Number
from vmm.policies.link import unable
from vmm.vtx.vmcs_bits import CR_GPR, CR_GPR_SHIFT
from vmm.vtx.x86 import EFER_LMA, MASK64

_TABLES_32 = 0xFFFFFFE0  # with PAE paging
_FUNCTION = "finish_task_switch"  # Linux, kernel/sched/core.c: the first function that the next task runs

_FILTERS = (Number("cr3", MASK64, "only a MOV to CR3 of these page tables, whatever the PCID"),)


class Switch(Call):
    """Switches of Linux's tasks. With cr3=, and for a guest that is not booted as Linux, of() returns _ByTables."""

    name = "switch"
    text = (
        "another task runs. Linux: each thread, vcpu.task is the one that comes, vcpu.previous the one that has left; "
        "pid= and comm= are of the one that comes. Others, and with cr3=: before a MOV to CR3 that changes the page "
        'tables. No value; HANDLED drops that MOV. SDM Vol. 3C, "EPT Violations"; "Exit Qualification for '
        'Control-Register Accesses"'
    )
    filters = _FILTERS

    def check(self, chosen):
        super(Call, self).check(chosen)

    def of(self, vm, chosen):
        if "cr3" in chosen or (vm.config.get("protocol") or "linux") != "linux":
            return _ByTables()
        kernel = vm.kernel
        return self.at(kernel.space.translate(place(kernel)), True)

    def quickly(self, vm):
        return self.quick, self.quick_skip

    def skip(self, vcpu):
        """Go on: the event is no instruction that could be skipped."""
        from vmm.debug import past

        there = vcpu.vm.hidden.at(self.gpa).past
        return past.past(there.address, there.slow, vcpu)

    def value(self, vcpu, value, handler):
        raise ValueError("%s has no value" % self.name)


def place(kernel):
    """The gva of the function behind the switch; a compiler may have given it a suffix, such as .isra.0."""
    found = [
        (name, gva)
        for name, gva in kernel.symbols.search(_FUNCTION + "*")
        if name.partition(".")[0] == _FUNCTION and ".cold" not in name
    ]
    if len(found) != 1:
        raise ValueError("the guest's kernel has no symbol %s, or several: name the page tables, cr3=" % _FUNCTION)
    return found[0][1]


class _ByTables(Cr):
    name = Switch.name
    text = Switch.text
    filters = _FILTERS
    quick = staticmethod(unable)  # Cr's would write the value to CR3

    def _all(self, chosen):
        return chosen if "cr3" in chosen else {"number": 3, "write": True}

    def tests(self, chosen):
        return super().tests(self._all(chosen))

    def needs(self, chosen):
        return super().needs(self._all(chosen))

    def accepts(self, chosen):
        return None if "cr3" in chosen else _changes

    def value(self, vcpu, value, handler):
        raise ValueError("%s has no value" % self.name)


def _changes(vcpu):
    """Whether a MOV to CR3 changes the page tables."""
    mask = ADDRESS if vcpu.efer & EFER_LMA else _TABLES_32
    after = getattr(vcpu, GPRS[(vcpu.qualification & CR_GPR) >> CR_GPR_SHIFT])
    return bool((after ^ vcpu.cr3) & mask)


SWITCH = Switch()
