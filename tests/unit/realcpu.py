"""Runs one instruction on this machine's CPU: registers and flags in, registers and flags out.

x86-64 Linux only. A small routine, assembled by keystone, loads the registers, runs the
instruction from an executable page and stores the registers; rSP is the host's own.
"""

import ctypes
import functools
import mmap
import platform

import keystone

AVAILABLE = platform.machine() == "x86_64" and platform.system() == "Linux"
NAMES = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"] + ["r%d" % n for n in range(8, 16)]
FLAGS = 16  # index of the flags in the array of 17 words
_SAVED = ("rbx", "rbp", "r12", "r13", "r14", "r15")


def assemble(text, bits=64):
    mode = {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}[bits]
    return bytes(keystone.Ks(keystone.KS_ARCH_X86, mode).asm(text)[0])


@functools.cache
def _frame():
    others = [n for n in range(16) if n not in (4, 7)]
    head = ["push %s" % r for r in _SAVED] + ["push rdi", "push qword ptr [rdi + 128]", "popfq"]
    head += ["mov %s, [rdi + %d]" % (NAMES[n], 8 * n) for n in others] + ["mov rdi, [rdi + 56]"]
    tail = ["xchg rdi, [rsp]"] + ["mov [rdi + %d], %s" % (8 * n, NAMES[n]) for n in others]
    tail += ["pushfq", "pop qword ptr [rdi + 128]", "cld", "pop rax", "mov [rdi + 56], rax"]
    tail += ["pop %s" % r for r in reversed(_SAVED)] + ["ret"]
    return assemble(";".join(head)), assemble(";".join(tail))


class Cpu:
    """`memory` is a page of data that instructions may address, at gva `base`."""

    def __init__(self):
        self._page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self.memory = mmap.mmap(-1, 4096)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def run(self, code, registers):
        """`registers`: 17 words, changed in place; rsp is ignored."""
        head, tail = _frame()
        routine = head + code + tail
        self._page[: len(routine)] = routine
        words = (ctypes.c_uint64 * 17)(*registers)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._code)(ctypes.addressof(words))
        rsp = registers[4]
        registers[:] = list(words)
        registers[4] = rsp
