"""The exit handlers of CPUID, one for each kind of leaf. cpuid.py computes the words that they return.

frame.DATUM is the address of a leaf's words: EAX-EDX; for a leaf with subleaves a count and an XCR0 (of leaf 0DH), then
EAX-EDX of each subleaf.
"""

import micropython
from micropython import const

from vmm import tally
from vmm.devices.lapic_registers import APIC_ID, ENABLED
from vmm.verdict import ADVANCE
from vmm.vtx import cpuid_bits as x
from vmm.vtx.frame import APIC_PAGE, DATUM, RAX, RBX, RCX, RDX, XCR0
from vmm.vtx.vmcs import GUEST_CR4
from vmm.vtx.x86 import CR4_OSXSAVE, CR4_PKE

HYPERVISOR_LEAF = const(0x40000000)
COUNTED = const(2)  # words in front of a leaf with subleaves: how many answers follow, XCR0


# Linux looks for a hypervisor at 256 leaves, each time that it detects one.
@micropython.viper
def other(unknown, count_of, limits: int, highest, vcpu) -> int:
    """Handler of leaves without a key: 0 for other hypervisors' leaves, the highest basic leaf (by `highest`) for
    unknown ones, Cpuid.exit() for known ones. limits: address of three words: the highest basic leaf, the highest
    extended leaf, the address of the highest basic leaf's words. unknown: {leaf: count}; count_of: its get()."""
    f = ptr32(vcpu)
    w = ptr32(limits)
    leaf = int(f[RAX])
    if leaf >> 16 == HYPERVISOR_LEAF >> 16:
        if leaf & 0xFFFF <= 3:
            return int(vcpu.vm.cpuid.exit(vcpu))
        f[RAX] = 0
        f[RBX] = 0
        f[RCX] = 0
        f[RDX] = 0
        f[RAX + 1] = 0
        f[RBX + 1] = 0
        f[RCX + 1] = 0
        f[RDX + 1] = 0
        return ADVANCE
    if leaf <= int(w[0]) or (leaf >= 0x80000000 and leaf <= int(w[1])):
        return int(vcpu.vm.cpuid.exit(vcpu))
    count = count_of(leaf)
    if count:
        unknown[leaf] = int(count) + 1
    else:
        tally.count(unknown, leaf)
    f[DATUM] = w[2]
    return int(highest(vcpu))


# Separate functions, since a call would take a fifth of the exit's time. The frame is the only argument where possible:
# a viper function has two registers for local variables, further ones are in memory.
@micropython.viper
def leaf(f: ptr32) -> int:
    """Handler of a leaf whose four words are at frame.DATUM."""
    w = ptr32(f[DATUM])
    f[RAX] = w[0]
    f[RBX] = w[1]
    f[RCX] = w[2]
    f[RDX] = w[3]
    f[RAX + 1] = 0
    f[RBX + 1] = 0
    f[RCX + 1] = 0
    f[RDX + 1] = 0
    return ADVANCE


@micropython.viper
def leaf_1(read, vcpu) -> int:
    """Handler of leaf 1, with the APIC ID; OSXSAVE reflects CR4, APIC reflects IA32_APIC_BASE.

    Source: SDM Vol. 3A, "Enabling or Disabling the Local APIC".
    """
    f = ptr32(vcpu)
    w = ptr32(f[DATUM])
    r = ptr32(f[APIC_PAGE])
    f[RAX] = w[0]
    f[RBX] = int(w[1]) | int(r[APIC_ID // 4]) << x.LEAF_1_EBX_APIC_ID
    f[RCX] = w[2]
    f[RDX] = w[3] if r[ENABLED // 4] else int(w[3]) ^ x.LEAF_1_EDX_APIC
    f[RAX + 1] = 0
    f[RBX + 1] = 0
    f[RCX + 1] = 0
    f[RDX + 1] = 0
    if int(read(vcpu, GUEST_CR4)) & CR4_OSXSAVE:
        f[RCX] |= x.LEAF_1_ECX_OSXSAVE
    return ADVANCE


@micropython.viper
def subleaf(exit_, vcpu) -> int:
    """Handler of a leaf with subleaves: at frame.DATUM a count, an XCR0 (of leaf 0DH), and four words each."""
    f = ptr32(vcpu)
    w = ptr32(f[DATUM])
    if f[RCX] >= w[0]:
        return int(exit_(vcpu))
    w = ptr32(int(w) + 4 * COUNTED + (int(f[RCX]) << 4))
    f[RAX] = w[0]
    f[RBX] = w[1]
    f[RCX] = w[2]
    f[RDX] = w[3]
    f[RAX + 1] = 0
    f[RBX + 1] = 0
    f[RCX + 1] = 0
    f[RDX + 1] = 0
    return ADVANCE


@micropython.viper
def topology(exit_, vcpu) -> int:
    """Handler of leaves 0BH and 1FH, whose EDX is the x2APIC ID."""
    f = ptr32(vcpu)
    done = int(subleaf(exit_, vcpu))
    f[RDX] = ptr32(f[APIC_PAGE])[APIC_ID // 4]
    return done


@micropython.viper
def leaf_7(exit_, read, vcpu) -> int:
    """Handler of leaf 7, whose OSPKE reflects CR4."""
    f = ptr32(vcpu)
    w = ptr32(f[DATUM])
    if f[RCX] >= w[0]:
        return int(exit_(vcpu))
    f[RAX] = w[COUNTED]
    f[RBX] = w[COUNTED + 1]
    f[RCX] = w[COUNTED + 2]
    f[RDX] = w[COUNTED + 3]
    f[RAX + 1] = 0
    f[RBX + 1] = 0
    f[RCX + 1] = 0
    f[RDX + 1] = 0
    if int(read(vcpu, GUEST_CR4)) & CR4_PKE:
        f[RCX] |= x.LEAF_7_ECX_OSPKE
    return ADVANCE


@micropython.viper
def leaf_d(exit_, vcpu) -> int:
    """Handler of leaf 0DH, whose sizes are those of the XCR0 in the word behind the count."""
    f = ptr32(vcpu)
    w = ptr32(f[DATUM])
    if f[RCX] >= w[0] or (f[RCX] < 2 and f[XCR0] != w[1]):
        return int(exit_(vcpu))
    w = ptr32(int(w) + 4 * COUNTED + (int(f[RCX]) << 4))
    f[RAX] = w[0]
    f[RBX] = w[1]
    f[RCX] = w[2]
    f[RDX] = w[3]
    f[RAX + 1] = 0
    f[RBX + 1] = 0
    f[RCX + 1] = 0
    f[RDX + 1] = 0
    return ADVANCE
