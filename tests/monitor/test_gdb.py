"""gdb itself on small guests: registers, memory, breakpoints, watchpoints, steps, modes, `monitor` commands."""

import re

import pytest
from bench import CODE, DATA, HANDLERS, REAL
from elftools.elf.elffile import ELFFile
from gdb_guests import CODE32, CODE64, COUNT, INC, LOOP, NOP, READ, STORED, SWITCH, SWITCH_DATA, WORK, program
from gdb_session import attached


@pytest.fixture
def gdb(bench):
    """gdb(guest, ...): a session; at its end nothing of it is left in the monitor."""
    made = []

    def start(guest, **options):
        made.append((guest, attached(bench.monitor, guest.eval("min(vm.vpids)"), **options)))
        return made[-1][1]

    yield start
    for guest, session in made:
        session.quit()
        bench.run(50)
        assert guest.eval("(len(vm.hidden), vm.policies, vm.debugger, monitor.gdb.stub)") == (0, [], None, None)


def test_nothing_is_imported_before_somebody_talks_on_the_line(bench):
    """First in this file: the monitor is as it boots."""
    names = bench.eval("sorted([name for name in sys.modules if 'debug.gdb' in name or 'debug_registers' in name])")
    assert names == ["vmm.debug.gdb", "vmm.debug.gdb.line"]


def test_registers_memory_and_steps(guest, gdb):
    session = gdb(guest(LOOP))
    out = session(
        "p/x $rip", "stepi", "stepi", "p/x $rbx", "set $rcx = 41", "stepi", "stepi", "stepi", "p $rcx",
        f"p *(long *){DATA:#x}", f"set var *(long *){DATA:#x} = 77", f"x/xg {DATA:#x}", "p $cr0", "p $mode",
    )  # fmt: skip
    assert "$1 = 0x100000" in out and f"$2 = {DATA:#x}" in out
    assert "$3 = 42" in out and "$4 = 1" in out and f"{DATA:#x}:\t0x000000000000004d" in out
    assert "$5 = [ PE ET PG ]" in out and "$6 = 64" in out
    out = session(
        "set $cr2 = 0x1234", "set $gs_base = 0x5678", "set $eflags = 0x47", "stepi", "p/x $cr2", "p/x $gs_base",
        "p $eflags", "p $efer", "p/x $cs_rights", "set $cs = 8", "set $cpl = 3",
    )  # fmt: skip
    assert "$7 = 0x1234" in out and "$8 = 0x5678" in out and "$9 = [ CF PF ZF" in out
    assert "$10 = [ LME LMA ]" in out and "$11 = 0xa09b" in out and out.count("Could not write register") == 2


def test_vectors_and_the_x87(guest, gdb, xsave):
    if not xsave:
        pytest.skip("this CPU model has no XSAVE")
    made = guest(
        f"mov rax, cr4\nor rax, 0x40600\nmov cr4, rax\nxor ecx, ecx\nxgetbv\nor eax, 7\nxsetbv\nmov rbx, {DATA:#x}\n"
        "movdqu xmm3, [rbx]\nfninit\nfld1\nfldpi\nvmovdqu ymm5, [rbx]\nvmovdqu [rbx + 64], ymm5\n"
        "movdqu [rbx + 96], xmm3\nfxch st(1)\nfstp qword ptr [rbx + 112]\nhlt",
        data={DATA: bytes(range(64))},
    )
    session = gdb(made)
    if "AVX" not in made.eval("'AVX' if __import__('cpu').cpuid(1)[2] >> 28 & 1 else ''"):
        pytest.skip("this CPU model has no AVX")
    out = session(
        f"hbreak *{CODE + 0x33:#x}", "c", "p $xmm3.v16_int8", "p $ymm5.v8_int32", "p $st0", "p $mxcsr",
        "set $ymm5.v8_int32[7] = 77", "set $xmm3.v4_float[1] = 1.5", "set $st1 = 2.5", "stepi 3",
        f"p ((int *){DATA + 64:#x})[7]", f"p ((float *){DATA + 96:#x})[1]", "stepi", f"p *(double *){DATA + 112:#x}",
    )  # fmt: skip
    assert "= {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}" in out, out
    assert "= {50462976, 117835012, 185207048, 252579084, 319951120, 387323156, 454695192, 522067228}" in out
    assert "= 3.14159265358979323851" in out and "[ IM DM ZM OM UM PM ]" in out
    assert "$5 = 77" in out and "$6 = 1.5" in out and "$7 = 2.5" in out, out


def test_breakpoints_and_watchpoints(guest, gdb):
    session = gdb(guest(LOOP))
    out = session(f"break *{INC:#x}", f"hbreak *{COUNT:#x}", "c", "c", "c", "info registers rcx", f"x/2i {INC:#x}")
    hits = re.findall(r"^Breakpoint (\d), (0x[0-9a-f]+)", out, re.MULTILINE)
    assert [(n, int(at, 16)) for n, at in hits] == [("1", INC), ("2", COUNT), ("1", INC)]
    assert "incq   (%rbx)" in out
    out = session("delete", f"watch *(long *){DATA:#x}", "c", "c", "p/x $rip")
    assert re.findall(r"New value = (\d+)", out) == ["2", "3"] and f"$1 = {COUNT:#x}" in out
    out = session("delete", f"rwatch *(long *){DATA + 0x200:#x}", f"awatch *(long *){DATA + 0x100:#x}", "c", "p/x $rip")
    assert "New value = 3" in out and f"$2 = {STORED:#x}" in out
    out = session("c", "p/x $rip")
    assert "Value = 0" in out and f"$3 = {READ:#x}" in out
    out = session("delete", f"watch *(char (*)[64]){DATA:#x}", "c", "p/x $rip")  # by the rights of its page
    assert "Hardware watchpoint" in out and f"$4 = {COUNT:#x}" in out
    session("delete", f"break *{INC:#x} if $rcx == 5", "c")
    assert "$5 = 5" in session("p $rcx")


def test_a_breakpoint_waits_for_its_page(guest, gdb):
    """Above 4 GiB while nothing is mapped there; a page table of the guest's maps it later. Debug registers are few."""
    high = 1 << 39
    code = high + 0x100100
    session = gdb(guest(
        f"mov rax, cr3\nmov rcx, [rax]\nmov [rax + 8], rcx\nmov cr3, rax\nmov rax, {code:#x}\njmp rax\n",
        data={0x100100: b"\x90" * 16 + b"\xf4"},
    ))  # fmt: skip
    out = session(*(f"break *{code + n:#x}" for n in range(7)), *["c"] * 7, "stepi", "p/x $rip")
    assert [int(at, 16) for at in re.findall(r"^Breakpoint \d, (0x\w+)", out, re.MULTILINE)] == [
        code + n for n in range(7)
    ]
    assert f"$1 = {code + 7:#x}" in out


def test_16_32_and_64_bit_code_in_one_session(guest, gdb):
    session = gdb(guest(SWITCH, bits=16, data=SWITCH_DATA))
    out = session("p $mode", f"x/4i {REAL:#x}", f"break *{CODE32:#x}", f"break *{CODE64:#x}", "stepi 4", "p/x $bx")
    assert "$1 = 16" in out and re.search(r"movw\s+\$0x1234, %bx", out) and "$2 = 0x1234" in out, out
    out = session("c", "p $mode", "x/5i $rip", "stepi 5", "p/x $ebx")
    assert "Breakpoint 1, " in out and "$3 = 32" in out and re.search(r"movl\s+\$0x12345678, %ebx", out)
    assert "$4 = 0x12345678" in out
    out = session("c", "p $mode", "x/2i $rip", "stepi 2", "p/x $r9")
    assert "Breakpoint 2, " in out and "$5 = 64" in out and "movabs $0x1122334455667788,%rax" in out
    assert "$6 = 0x1122334455667788" in out


def test_a_program_by_its_lines(guest, gdb, tmp_path):
    """Symbols, locals, `next` and `step` (range steps), `finish`, `until`, `bt`."""
    elf, code = program(tmp_path)
    with elf.open("rb") as file:
        work = ELFFile(file).get_section_by_name(".symtab").get_symbol_by_name("work")[0]["st_value"]
    session = gdb(guest(f"call {work:#x}", data={WORK: code}), symbols=elf)
    out = session("break square", "c", "bt", "next", "info locals", "finish", "next", "next")
    assert "Breakpoint 1, square (n=0)" in out and re.search(r"#1 .* in sum \(n=100\) .*\n#2 .* in work \(\)", out)
    assert "value = 0" in out and "Value returned is $1 = 0" in out
    assert "Breakpoint 1, square (n=1)" not in out and "11\t        all += square(i);" in out
    out = session("step", "delete", "watch total", "c", "p total", "tbreak work", "until 17", "info line")
    assert "square (n=1)" in out and "New value = 328350" in out and "$2 = 328350" in out and "Line 17" in out, out


def test_the_guests_debug_registers_beside_those_of_gdb(guest, gdb):
    """It watches a word and an instruction of its own; each meets its own, and reads what it has written."""
    made = guest(
        f"""
        mov rbx, {DATA:#x}
        lea rax, [rip + own]
        mov dr0, rax
        mov eax, {DATA + 8:#x}
        mov dr1, rax
        mov eax, {0xD << 20 | 0x40A:#x}
        mov dr7, rax
    again:
        inc qword ptr [rbx]
    own:
        nop
        mov [rbx + 8], rcx
        mov rdx, dr7
        mov [rbx + 0x40], rdx
        mov rdx, dr3
        mov [rbx + 0x48], rdx
        jmp again
        """,
        handlers={1: f"inc qword ptr [{DATA + 0x18:#x}]\nbts qword ptr [rsp + 16], 16\niretq"},
    )
    session = gdb(made)
    out = session(f"watch *(long *){DATA:#x}", f"awatch *(long *){DATA + 0x48:#x}", "c", "c", "c", "p/x $dr7")
    assert re.findall(r"New value = (\d+)", out) == ["1", "2"] and "Value = 0" in out and "$1 = 0xd0040a" in out
    assert f"= {HANDLERS:#x}" in session("delete", "stepi", "p/x $rip")  # its breakpoint is an exception of its own
    assert (made.word(), made.word(3)) == (2, 2) and (made.word(8), made.word(9)) == (0xD0040A, 0)
    session("detach")
    made.until(f"vm.memory.read_u64({DATA:#x}) > 50")
    made.exec("vm.pause()")
    assert made.eval("vcpu.dr7") == 0xD0040A and abs(made.word(3) - 2 * made.word()) <= 2


def test_monitor_commands(guest, gdb):
    made = guest(LOOP, data={DATA: bytes(range(32))})
    out = gdb(made)(
        "monitor help", f"monitor xp /2xg {DATA:#x}", f"monitor gva2gpa {DATA:#x}", "monitor info registers",
        "monitor info mem", "monitor info tlb", "monitor info pic", "monitor info lapic", "monitor python 6 * 7",
        "monitor python print(vms)", "monitor phys on", f"x/xg {DATA:#x}", "monitor phys off", "info threads",
        "info os processes", "monitor x/2xw $rbx", "monitor info guests",
    )  # fmt: skip
    for text in (
        f"{DATA:016x}: 0x0706050403020100 0x0f0e0d0c0b0a0908", f"gpa: {DATA:#x}", "RIP=0000000000100000 RFL=00000002",
        "pic0: irr=", "dumping local APIC state for CPU 0", "42\n", "stopped by gdb",
        f"{DATA:#x}:\t0x0706050403020100", f"{made.name}: vCPU 0, 64-bit", "gva2gpa ADDR",
    ):  # fmt: skip
        assert text in out, (text, out)
    assert re.search(r"^0{16}-[0-9a-f]{16} [0-9a-f]{16} [u-]rw$", out, re.MULTILINE)


def test_a_command_may_take_longer_than_gdb_waits(guest, gdb):
    """gdb then asks for the answer again, though acknowledgements are off; it must not come twice."""
    session = gdb(guest(LOOP))
    slow = "monitor python exec('i = 0\\nwhile i < 1000000: i += 1')"
    out = session("set remotetimeout 1", slow, "monitor python 6 * 7", f"x/xg {CODE:#x}", "monitor python 6 * 8")
    assert re.search(r"\b42\n(?s:.*)0x100000:\t0x[0-9a-f]{16}\n(?s:.*)\b48\n", out), out


def test_bad_input_gets_a_line_and_nothing_is_lost(guest, gdb):
    made = guest(LOOP)
    session = gdb(made)
    for command, said in (
        ("monitor nonsense", "unknown command nonsense"), ("monitor info foo", "info foo; there are lapic, mem"),
        ("monitor", "gva2gpa ADDR"), ("monitor gva2gpa", "gva2gpa ADDR\n"), ("monitor gva2gpa zzz", "has no symbols"),
        ("monitor gva2gpa $nothing", "no register nothing"), ("monitor gva2gpa -1", "is no 64-bit address"),
        ("monitor gva2gpa 0x123456789000", "Unmapped: gva 0x123456789000 is not mapped"),
        ("monitor xp /99999x 0", "at most 4096 items"), ("monitor xp /4xq 0", "format /4xq"),
        ("monitor xp /4xw 0xffff00000000", "outside guest memory"), ("monitor phys maybe", "phys on|off"),
        ("monitor tasks on", "no Linux"), ("monitor python 1/0", "ZeroDivisionError"),
        ("monitor python def f(:", "SyntaxError"), ("x/x 0x123456789000", "Cannot access memory"),
        ("set var *(int *)0x123456789000 = 1", "Cannot access memory"),
    ):  # fmt: skip
        out = session(command)
        assert said in out and len(out) < 2000, (command, out)
    out = session("break *0x123456789000", "watch *(char (*)[70000])0x1000", "c")
    assert "Could not insert hardware watchpoint" in out
    out = session("delete", "set $rip = 0x8000000000000000", "stepi", f"set $rip = {NOP:#x}", "stepi", "p/x $rip")
    assert "SIGSEGV" in out and f"= {INC:#x}" in out, out
