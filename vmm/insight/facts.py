"""Facts for host tools that read a guest's memory: where it lies, registers, VMCOREINFO of a Linux.

pcanel dump, drgn, screenshot and view ask for it at the prompt, vm.dump() and vm.screenshot() hand it to the host.
Registers are those of struct user_regs_struct, which a core file's NT_PRSTATUS has (Linux,
arch/x86/include/asm/user_64.h).
"""

import struct

import uctypes

from vmm.insight import vmcoreinfo
from vmm.scheduling import states
from vmm.vtx.x86 import MASK64

_FIRST = ("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi")
_NO_CALL = MASK64  # orig_rax: in no system call
_WHY = "for pcanel"


def registers(vcpu):
    """The 27 numbers of struct user_regs_struct."""
    values = [getattr(vcpu, name) & MASK64 for name in _FIRST]
    values += [_NO_CALL, vcpu.rip & MASK64, vcpu.cs[0], vcpu.rflags, vcpu.rsp & MASK64, vcpu.ss[0]]
    fs, gs = vcpu.segment("fs"), vcpu.segment("gs")
    return values + [fs[1] & MASK64, gs[1] & MASK64, vcpu.segment("ds")[0], vcpu.segment("es")[0], fs[0], gs[0]]


def _page_offset(vm, image):
    """The gva of gpa 0 in a 64-bit kernel's direct map, 0 where that is not known."""
    try:
        gva = vm.symbols.get("page_offset_base")
        return struct.unpack("<Q", image.view(gva, 8))[0] if gva else 0
    except ValueError:
        return 0


def of(vm):
    """A dict of numbers, texts and lists of them.

    segments: (gpa, size, hpa); vcpus: state, registers, cr3 of each; frames: their hpas; vmcoreinfo: the text of
    VMCOREINFO, "" where the guest has none; why: the reason, then; page_offset: gva of gpa 0 in a Linux's direct map,
    or 0.
    """
    text, why, offset = "", "", 0
    try:
        image = vmcoreinfo.of(vm)
        text = image.text
        offset = _page_offset(vm, image)
    except ValueError as error:
        why = str(error)
    return {
        "name": vm.name,
        "state": vm.state,
        "starts": vm.starts,
        "segments": [tuple(segment) for segment in vm.memory.segments],
        "vcpus": [
            {"state": vcpu.scheduled.state, "cr3": vcpu.cr3 & MASK64, "registers": registers(vcpu)} for vcpu in vm.vcpus
        ],
        "frames": [vcpu.frame_hpa for vcpu in vm.vcpus],
        "vmcoreinfo": text,
        "why": why,
        "page_offset": offset,
    }


def screen(vm):
    """Where the host finds what a guest's screen shows: addresses of its registers and of its memory, 0 for none."""
    vga = vm.pc.vga
    vbe = vga.vbe
    display = vm.expansion.display if vm.expansion else None
    return {
        "name": vm.name,
        "starts": vm.starts,
        "size": vm.memory.segments[0][1],
        "low": vm.memory.segments[0][2],
        "vga": uctypes.addressof(vga.state),
        "palette": uctypes.addressof(vga.palette) if vga.palette else 0,
        "vbe": uctypes.addressof(vbe.state) if vbe else 0,
        "video": display.memory if display else 0,
        "video_size": vbe.size if vbe else 0,
    }


def hold(vm):
    """Pause a guest for a host tool, which releases it later; returns whether it ran before."""
    if vm.state not in (states.RUNNING, states.HALTED):
        return False
    vm.pause()
    vm.why = _WHY
    return True


def release(vm):
    """Let a guest go on that hold() has paused, unless it was started or stopped meanwhile."""
    if vm.state == states.PAUSED and vm.why == _WHY:
        vm.resume()


def ask(vms, name, what):
    """(what(vm),) for the guest of a name, for an expression of the host; without such a guest the guests' names."""
    return (what(vms[name]),) if name in vms else sorted(vms)
