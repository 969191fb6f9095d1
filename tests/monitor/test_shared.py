"""Shared memory between guests: the same pages, each side's rights, the doorbell, discovery."""

import struct

import pytest
from bench import DATA

WINDOW = 0xD0000000
RING = 0x100
ACKNOWLEDGE = 0x101
LINE = 5  # of the 8259s
PIN = 20  # of the I/O APIC
BOARD = {"name": "board", "size": 0x2000, "access": "rw"}

PIC = """
mov al, 0x11; out 0x20, al
mov al, 0x20; out 0x21, al
mov al, 4; out 0x21, al
mov al, 1; out 0x21, al
mov al, 0xDF; out 0x21, al
"""
IOAPIC = f"""
mov rdi, 0xFEC00000
mov dword ptr [rdi], {0x10 + 2 * PIN:#x}
mov dword ptr [rdi + 0x10], 0x45
mov dword ptr [rdi], {0x11 + 2 * PIN:#x}
mov dword ptr [rdi + 0x10], 0
"""
IDLE = "sti; idle: hlt; jmp idle"
# Adds what was rung to the first word, counts itself in the second, copies the window's first word to the third.
ANSWER = f"""
push rax; push rbx
mov eax, {ACKNOWLEDGE:#x}; xor ebx, ebx; vmcall
add [{DATA:#x}], rax
inc qword ptr [{DATA + 8:#x}]
mov eax, {WINDOW:#x}; mov rax, [rax]
mov [{DATA + 16:#x}], rax
"""
RETURN = "pop rbx; pop rax; iretq"
PIC_EOI = "mov al, 0x20; out 0x20, al\n"
APIC_EOI = "mov eax, 0xFEE000B0; mov dword ptr [rax], 0\n"


def ringer(times):
    """Writes 1, 2, ... into the window and rings after each; the answers go to DATA."""
    return f"""
    mov r8d, 1; mov r9, {WINDOW:#x}
    again: mov [r9], r8
    mov eax, {RING:#x}; xor ebx, ebx; vmcall
    mov [{DATA:#x} + r8 * 8], rax
    inc r8; cmp r8, {times}; jbe again
    hlt
    """


def side(**changes):
    return [{**BOARD, **changes}]


@pytest.fixture(autouse=True)
def memory(bench, guest):
    """What a test takes is back when its guests are gone."""
    before = bench.eval("monitor.pages.available")
    yield
    bench.exec("for vm in list(vms.values()): vm.destroy()")
    assert bench.eval("monitor.pages.available") == before
    assert bench.eval("len(monitor.windows.by_name)") == 0


def test_both_sides_see_one_memory(guest):
    store = (
        "mov r9, {:#x}; mov qword ptr [r9 + {}], {}; wait: mov rax, [r9 + {}]; test rax, rax; jz wait;"
        "mov [{:#x}], rax; hlt"
    )
    a = guest(store.format(WINDOW, 8, 77, 0x1008, DATA), shared=side())
    b = guest(store.format(0xE0000000, 0x1008, 99, 8, DATA), shared=side(gpa=0xE0000000))
    a.go()
    b.halted()
    a.halted()
    assert (a.word(), b.word()) == (99, 77)


@pytest.mark.parametrize("setup, eoi, gsi, vector", [(PIC, PIC_EOI, LINE, 0x25), (IOAPIC, APIC_EOI, PIN, 0x45)])
def test_the_doorbell_is_an_interrupt_and_none_is_lost(guest, setup, eoi, gsi, vector):
    b = guest(setup + IDLE, handlers={vector: ANSWER + eoi + RETURN}, shared=side(access="ro", gsi=gsi))
    b.halted()
    a = guest(ringer(5), shared=side())
    a.halted()
    b.until(f"vm.memory.read_u64({DATA:#x}) == 5")
    rings, interrupts, seen = b.words(3)
    assert rings == 5 and 1 <= interrupts <= 5
    assert seen == 5
    assert a.words(5, 1) == (1,) * 5
    assert b.eval("vm.windows[0].rung") == 5


def test_each_ring_that_is_answered_is_one_interrupt(guest):
    b = guest(PIC + IDLE, handlers={0x25: ANSWER + PIC_EOI + RETURN}, shared=side(gsi=LINE))
    b.halted()
    a = guest(f"again: mov eax, {RING:#x}; xor ebx, ebx; vmcall; hlt; jmp again", shared=side())
    for count in range(1, 4):
        a.until("vm.state == 'halted'")
        b.until(f"vm.memory.read_u64({DATA + 8:#x}) == {count}")
        assert b.words(2) == (count, count)
        a.exec("vcpu.scheduled.state = 'running'")


def test_a_read_only_side_cannot_write(guest, bench):
    a = guest(f"mov r9, {WINDOW:#x}; mov dword ptr [r9], 0x11; hlt", shared=side())
    a.halted()
    b = guest(
        f"mov r9, {WINDOW:#x}; mov dword ptr [r9], 0x22; inc dword ptr [r9]; mov rdi, r9; mov al, 7; mov ecx, 3;"
        f"rep stosb; mov eax, [r9]; mov [{DATA:#x}], rax; hlt",
        shared=side(access="ro"),
    )
    b.halted()
    assert b.word() == 0x11
    assert bench.eval("bytes(monitor.windows['board'].view[:4])") == b"\x11\0\0\0"
    assert b.eval("vm.windows[0].refused") == 5
    assert b.eval("vm.unclaimed()['refused']") == {"write to read-only window board": 5}
    assert "5 writes refused" in bench.exec("print(monitor.windows)")


def test_nobody_executes_from_a_window(guest):
    b = guest(f"mov rax, {WINDOW:#x}; mov byte ptr [rax], 0xF4; jmp rax", shared=side())
    assert "runs code at gpa 0xd0000000" in b.until("vm.state == 'stopped'")


def test_cpuid_describes_the_windows(guest):
    source = "".join(
        f"mov eax, {leaf:#x}; mov ecx, {index}; cpuid;"
        + "".join(f"mov [{DATA + 16 * row + 4 * i:#x}], e{r}x;" for i, r in enumerate("abcd"))
        for row, (leaf, index) in enumerate([(0x40000000, 0), *((0x40000002 + i % 2, i // 2) for i in range(6))])
    )
    second = {"name": "sixteen_letters_", "size": 0x1000, "access": "ro"}
    b = guest(source + "hlt", shared=[{**BOARD, "gsi": 10}, second])
    b.halted()
    rows = list(struct.iter_unpack("<4I", struct.pack("<14Q", *b.words(14))))
    assert rows[0][0] == 0x40000003
    assert rows[1] == (WINDOW, 2, 1 | 2 | 10 << 8, 0)
    assert struct.pack("<4I", *rows[2]) == b"board".ljust(16, b"\0")
    assert rows[3] == (WINDOW + 0x2000, 1, 1 | 0xFF << 8, 0)
    assert struct.pack("<4I", *rows[4]) == b"sixteen_letters_"
    assert rows[5] == rows[6] == (0, 0, 0, 0)


def test_hypercalls_for_what_is_not_there(guest):
    calls = [(RING, 0), (RING, 1), (ACKNOWLEDGE, 0), (ACKNOWLEDGE, 7)]
    source = "".join(
        f"mov eax, {number:#x}; mov ebx, {window}; vmcall; mov [{DATA + 8 * i:#x}], rax;"
        for i, (number, window) in enumerate(calls)
    )
    a = guest(source + "hlt", shared=side())  # nobody else is there, and it has no doorbell itself
    a.halted()
    assert a.words(4) == (0, (1 << 64) - 1, (1 << 64) - 1, (1 << 64) - 1)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"size": 0x1000}, "ValueError: guest no: shared: board: 0x1000 bytes, but its other side has 0x2000"),
        ({"gpa": 0x1000}, "ValueError: guest no: shared[0].gpa: must be from 0xc0000000 to 0xfebfe000, not 0x1000"),
        ({"size": 0}, "ValueError: guest no: shared[0].size: must be bytes, a multiple of 4096"),
        ({"size": -0x1000}, "ValueError: guest no: shared[0].size: must be bytes, a multiple of 4096"),
        ({"size": "64K"}, "ValueError: guest no: shared[0].size: must be bytes, a multiple of 4096"),
        ({"name": "big", "size": 512 << 20}, "OutOfMemory: guest no: shared: big: 524288 KiB of host memory wanted"),
    ],
)
def test_refused(guest, bench, changes, words):
    guest("hlt", shared=side(), start=False)
    config = {"name": "no", "memory": 1 << 20, "protocol": "flat", "kernel": "k", "address": 0x7C00, "console": "none"}
    config["shared"] = side(**changes)
    look = "(monitor.pages.available, monitor.pages.free, len(monitor.pages._used), len(monitor.windows.by_name))"
    before = bench.eval(look)
    assert bench.refused(f"monitor.create({config!r}, {{'k': b'1'}})").startswith(words)
    assert bench.eval(look) == before


def test_memory_of_a_window_comes_back_empty(guest, bench):
    a = guest(f"mov rax, {WINDOW:#x}; mov dword ptr [rax], 5; hlt", shared=side())
    a.halted()
    a.destroy()
    b = guest(f"mov rax, {WINDOW:#x}; mov eax, [rax]; not rax; mov [{DATA:#x}], rax; hlt", shared=side())
    b.halted()
    assert b.word() == (1 << 64) - 1
