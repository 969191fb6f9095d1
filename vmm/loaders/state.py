"""The registers with which a loader starts the vCPU, as plain integers.

Access rights are in the VMCS format (SDM Vol. 3C, "Guest Register State"): type, S, DPL and P in bits 7:0, AVL 12, L
13, D/B 14, G 15, unusable 16.
"""

import struct

from micropython import const

from vmm.memory import linear
from vmm.vtx.vmcs_bits import RIGHTS_UNUSABLE
from vmm.vtx.x86 import CR0_ET, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, RFLAGS_FIXED

CODE16 = const(0x009B)
DATA16 = const(0x0093)
CODE32 = const(0xC09B)
CODE64 = const(0xA09B)
DATA32 = const(0xC093)
TSS_BUSY = const(0x008B)
LDT = const(0x0082)


LINUX_SELECTORS = (0x10, 0x18)  # __BOOT_CS, __BOOT_DS
MULTIBOOT_SELECTORS = (0x08, 0x10)
GDT = const(0x1000)  # where loaders put it
GDT_SIZE = const(48)
_GDT_CODE64 = const(0x00AF9B000000FFFF)
_GDT_CODE32 = const(0x00CF9B000000FFFF)
_GDT_DATA32 = const(0x00CF93000000FFFF)
_GDT_CODE16 = const(0x00009B000000FFFF)
_GDT_DATA16 = const(0x000093000000FFFF)

GPRS = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
SEGMENTS = linear.SEGMENTS + ("ldtr", "tr")


class LoadError(Exception):
    """An image that cannot be loaded: one line naming image, reason and offset."""


class State:
    """A vCPU's start: `mode` is 'real', 'protected' or 'long'.

    gprs      {name: value} for all of GPRS, rsp included
    segments  {name: (selector, base, limit, access rights)} for all of SEGMENTS

    selectors: of the flat code and data segments, which Linux expects at 10h and 18h, and
    kernels made for QEMU's Multiboot loader or GRUB at 8 and 10h. Control registers are
    as the guest reads them, without the bits that VMX fixes.
    """

    def __init__(self, mode, rip, rsp=0, selectors=LINUX_SELECTORS):
        if mode not in ("real", "protected", "long"):
            raise ValueError("mode %s" % mode)
        self.mode = mode
        self.bios = False  # the program uses the services of a BIOS
        self.rip = rip
        self.rflags = RFLAGS_FIXED
        self.gprs = {name: 0 for name in GPRS}
        self.gprs["rsp"] = rsp
        self.cr0 = CR0_ET
        self.cr3 = 0
        self.cr4 = 0
        self.efer = 0
        self.gdt_base = 0
        self.gdt_limit = 0
        self.idt_base = 0
        self.idt_limit = 0
        if mode == "real":
            self.idt_limit = 0x3FF
            self.gdt_limit = 0xFFFF
            self._flat(0, CODE16, 0, DATA16, 0xFFFF)
            return
        self.cr0 |= CR0_PE
        if mode == "long":
            self.cr0 |= CR0_PG
            self.cr4 = CR4_PAE
            self.efer = EFER_LME | EFER_LMA
        self._flat(selectors[0], CODE64 if mode == "long" else CODE32, selectors[1], DATA32, 0xFFFFFFFF)

    def _flat(self, code_selector, code, data_selector, data, limit):
        data_segment = (data_selector, 0, limit, data)
        self.segments = {name: data_segment for name in SEGMENTS}
        self.segments["cs"] = (code_selector, 0, limit, code)
        self.segments["ldtr"] = (0, 0, 0xFFFF, LDT | RIGHTS_UNUSABLE)
        self.segments["tr"] = (0, 0, 0xFFFF, TSS_BUSY)

    def segment_real(self, name, selector):
        """Gives segment `name` a real-mode selector: base is 16 times it."""
        _, _, limit, rights = self.segments[name]
        self.segments[name] = (selector, selector << 4, limit, rights)

    def write_gdt(self, memory, gpa):
        """Writes at `gpa` the GDT (GDT_SIZE bytes) that agrees with the flat segments.

        Behind them are 16-bit code and data segments, for a return to real mode.
        """
        code, data = self.segments["cs"][0], self.segments["ds"][0]
        table = bytearray(GDT_SIZE)
        struct.pack_into("<Q", table, code, _GDT_CODE64 if self.mode == "long" else _GDT_CODE32)
        struct.pack_into("<QQQ", table, data, _GDT_DATA32, _GDT_CODE16, _GDT_DATA16)
        memory.write(gpa, table)
        self.gdt_base = gpa
        self.gdt_limit = data + 23

    @property
    def rsp(self):
        """gprs["rsp"]."""
        return self.gprs["rsp"]
