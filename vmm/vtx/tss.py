"""Images of the 16-bit and the 32-bit task-state segment.

A task switch saves only the dynamic part, [START, END): EIP, EFLAGS, the eight registers and
the selectors. Registers and selectors are in the order of their encoding. Source: SDM Vol. 3A,
"Task-State Segment (TSS)", "16-Bit Task-State Segment (TSS)".
"""

import struct


class Tss32:
    """A 32-bit TSS. Source: SDM Vol. 3A, "Task-State Segment (TSS)"."""

    SIZE = 104
    START, END = 0x20, 0x5E  # what a switch saves
    WORD = 4

    @staticmethod
    def save(image, eip, flags, gprs, selectors):
        struct.pack_into("<10I", image, 0x20, eip, flags, *gprs)
        for i in range(6):
            struct.pack_into("<H", image, 0x48 + 4 * i, selectors[i])

    def __init__(self, image):
        words = struct.unpack_from("<10I", image, 0x20)
        self.eip, self.flags = words[:2]
        self.gprs = words[2:]
        self.selectors = [struct.unpack_from("<H", image, 0x48 + 4 * i)[0] for i in range(6)]
        self.cr3 = struct.unpack_from("<I", image, 0x1C)[0]
        self.ldtr, _, trap = struct.unpack_from("<HHH", image, 0x60)
        self.trap = trap & 1


class Tss16:
    """A 16-bit TSS, without CR3, FS, GS and the T flag. Source: SDM Vol. 3A, "16-Bit Task-State Segment (TSS)"."""

    SIZE = 44
    START, END = 0x0E, 0x2A
    WORD = 2

    @staticmethod
    def save(image, eip, flags, gprs, selectors):
        words = (eip, flags) + tuple(gprs) + tuple(selectors[:4])
        struct.pack_into("<14H", image, 0x0E, *[word & 0xFFFF for word in words])

    def __init__(self, image):
        words = struct.unpack_from("<15H", image, 0x0E)
        self.eip, self.flags = words[:2]
        self.gprs = [0xFFFF0000 | word for word in words[2:10]]
        self.selectors = list(words[10:14]) + [0, 0]
        self.ldtr = words[14]
        self.cr3 = None
        self.trap = 0
