"""gdb itself, in batch mode, on small guests."""

import re
import subprocess

import pytest
from bench import CODE, DATA, REAL
from pcanel.commands.gdb import command_line, environment

LOOP = f"""
    mov rbx, {DATA:#x}
    nop
again:
    inc qword ptr [rbx]
    inc rcx
    mov [rbx + 0x100], rcx
    jmp again
"""
NOP = CODE + 14
INC = CODE + 15
TIMEOUT = 60


def frame(data: bytes) -> bytes:
    return b"$%b#%02x" % (data, sum(data) & 0xFF)


@pytest.fixture(scope="module")
def gdb(bench):
    """gdb(guest, commands...) -> what it printed."""

    def run(guest, *commands):
        target = str(bench.monitor.run.path / "gdb.sock")
        number = guest.eval("min(vm.vpids)")
        rest = ["-nx", "-batch", *(word for command in commands for word in ("-ex", command))]
        words = command_line(target, number, None, 0, rest)
        words = [*words[:1], "-ex", "set remotetimeout 20", *words[1:]]
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, env=environment()
        )
        return done.stdout + done.stderr

    return run


def left(guest):
    """Nothing of gdb is left in the monitor."""
    guest.bench.run(50)
    assert guest.eval("(len(vm.hidden), vm.policies, vm.debugger, monitor.gdb.stub, vcpu.dr7)") == (
        0, [], None, None, 0x400,
    )  # fmt: skip


def test_registers_memory_and_steps(guest, gdb):
    made = guest(LOOP)
    out = gdb(
        made, "p/x $rip", "stepi", "stepi", "p/x $rbx", "set $rcx = 41", "stepi", "stepi", "stepi", "p $rcx",
        f"p *(long *){DATA:#x}", f"set var *(long *){DATA:#x} = 77", f"x/xg {DATA:#x}", "p $cr0", "p $mode", "p $mxcsr",
    )  # fmt: skip
    assert "$1 = 0x100000" in out and f"$2 = {DATA:#x}" in out
    assert "$3 = 42" in out and "$4 = 1" in out and f"{DATA:#x}:\t0x000000000000004d" in out
    assert "$5 = [ PE ET PG ]" in out and "$6 = 64" in out and "$7 = [ IM DM ZM OM UM PM ]" in out
    left(made)


def test_breakpoints_and_what_is_left_of_them(guest, gdb):
    made = guest(LOOP)
    out = gdb(
        made, f"break *{INC:#x}", f"hbreak *{INC + 3:#x}", "continue", "continue", "continue", "info registers rcx",
        f"x/2i {INC:#x}",
    )  # fmt: skip
    hits = re.findall(r"^Breakpoint (\d), (0x[0-9a-f]+)", out, re.MULTILINE)
    assert [(n, int(at, 16)) for n, at in hits] == [("1", INC), ("2", INC + 3), ("1", INC)]
    assert "incq   (%rbx)" in out
    left(made)


def test_watchpoints(guest, gdb):
    made = guest(LOOP)
    out = gdb(made, f"watch *(long *){DATA:#x}", "continue", "continue", "p/x $rip")
    assert re.findall(r"New value = (\d+)", out) == ["1", "2"]
    assert f"$1 = {INC + 3:#x}" in out
    out = gdb(made, f"watch *(char (*)[64]){DATA:#x}", "continue", "p/x $rip")
    assert "Hardware watchpoint 1" in out and f"$1 = {INC + 3:#x}" in out
    left(made)


def test_a_breakpoint_waits_for_its_page(guest, gdb):
    """Above 4 GiB while nothing is mapped there; a page table of the guest's maps it later."""
    high = 1 << 39
    made = guest(
        f"mov rax, cr3\nmov rcx, [rax]\nmov [rax + 8], rcx\nmov cr3, rax\nmov rax, {high + 0x100100:#x}\njmp rax\n",
        data={0x100100: b"\x90\x90\xf4"},
    )
    out = gdb(made, f"break *{high + 0x100101:#x}", "continue", "p/x $rip", "stepi")
    assert f"Breakpoint 1, 0x{high + 0x100101:016x}" in out
    left(made)


def test_real_mode_is_disassembled_as_such(guest, gdb):
    made = guest("mov ax, 0x1234\nmov bx, ax\nhlt", bits=16)
    out = gdb(made, f"x/2i {REAL:#x}", "stepi", "p/x $eax & 0xffff", "p $mode")
    assert re.search(r"mov\w*\s+\$0x1234, %ax", out), out
    assert re.search(r"mov\w*\s+%ax, %bx", out), out
    assert "$1 = 0x1234" in out and "$2 = 16" in out


def test_monitor_commands(guest, gdb):
    made = guest(LOOP, data={DATA: bytes(range(32))})
    out = gdb(
        made, "monitor help", f"monitor xp /2xg {DATA:#x}", f"monitor gva2gpa {DATA:#x}", "monitor info registers",
        "monitor info mem", "monitor info tlb", "monitor info pic", "monitor info lapic", "monitor python 6 * 7",
        "monitor python print(vms)", "monitor nonsense", "monitor phys on", f"x/xg {DATA:#x}", "info threads",
        "info os processes",
    )  # fmt: skip
    for text in (
        f"{DATA:016x}: 0x0706050403020100 0x0f0e0d0c0b0a0908", f"gpa: {DATA:#x}", "RIP=0000000000100000 RFL=00000002",
        "pic0: irr=", "dumping local APIC state for CPU 0", "42\n", "stopped by gdb", "unknown command nonsense",
        f"{DATA:#x}:\t0x0706050403020100", f"{made.name}: vCPU 0, 64-bit", "gva2gpa ADDR",
    ):  # fmt: skip
        assert text in out, (text, out)
    assert re.search(r"^0{16}-[0-9a-f]{16} [0-9a-f]{16} [u-]rw$", out, re.MULTILINE)


def test_attach_before_the_first_instruction(guest, gdb):
    made = guest(LOOP, start=False)
    out = gdb(made, "p/x $rip", f"break *{NOP:#x}", "continue")
    assert "$1 = 0x100000" in out and f"Breakpoint 1, {NOP:#018x}" in out
    left(made)


def test_a_triple_fault_stops_and_a_reset_holds(guest, gdb):
    made = guest("xor eax, eax\nmov qword ptr [rsp - 16], 0\nlidt [rsp - 16]\nud2")
    out = gdb(
        made, "continue", "p/x $rip", "monitor system_reset",
        "maintenance flush register-cache", "p/x $rip",
    )  # fmt: skip
    assert "SIGSEGV" in out and "$2 = 0x100000" in out


def test_a_guest_that_is_destroyed(guest, gdb):
    made = guest(LOOP)
    out = gdb(made, f"monitor python {made.ref}.destroy()", "continue")
    assert "killed" in out.lower() or "terminated" in out.lower(), out
    made.bench.run(50)
    assert made.bench.eval("monitor.gdb.stub") is None


def test_broken_packets_are_counted_and_nothing_is_lost(guest, bench):
    made = guest(LOOP)
    made.go()
    console = bench.monitor._endpoints["gdb"].console
    packets = [b"m,", b"P9999=00", b"Z9,0,0", b"vCont;q", b"qXfer:features:read:x:0,1", b"X0,5:}", b"Hgp7.7"]
    for data in (b"$" + b"a" * 9000, b"$g#00", b"\x03" * 50, *map(frame, packets), b"#" * 99):
        console.send(data)
    bench.run(200)
    assert bench.eval("monitor.gdb.bad") >= 2
    assert bench.said().count("[gdb]") <= 3
    console.send(frame(b"D"))
    bench.run(50)
    assert made.state == "running"
    left(made)
