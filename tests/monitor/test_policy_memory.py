"""Policies on memory: RAM and devices, with each verdict, and what the guest and its neighbours see."""

import struct

from bench import CODE, DATA
from pcanel.assemble import assemble

PAGE = 0x300000
READ = f"mov rsi, {PAGE:#x}\nmov rax, [rsi + 8]\nmov [{DATA:#x}], rax\nhlt"
WRITE = f"mov rsi, {PAGE:#x}\nmov qword ptr [rsi + 8], 0x55\nmov rax, [rsi + 8]\nmov [{DATA:#x}], rax\nhlt"
FILL = {PAGE: struct.pack("<4Q", 0x10, 0x11, 0x12, 0x13)}


def run(guest, source, filters, body, **options):
    made = guest(source, **{"data": FILL, **options})
    made.exec("seen = []")
    made.policy(f"MEMORY, {filters}", body)
    made.halted()
    return made


def test_read_default(guest):
    made = run(guest, READ, f"gpa={PAGE}", "seen.append((vcpu.gpa, vcpu.qualification & 7))")
    assert made.word() == 0x11
    assert made.eval("seen") == [(PAGE + 8, 1)]


def test_read_value(guest):
    assert run(guest, READ, f"gpa={PAGE}", "return Value(0x123456789abcdef)").word() == 0x123456789ABCDEF


def test_read_skip(guest):
    assert run(guest, "mov eax, 3\n" + READ, f"gpa={PAGE}", "return SKIP").word() == 3


def test_read_inject(guest):
    handler = f"mov qword ptr [{DATA:#x}], 0xd\nhlt"
    assert run(guest, READ, f"gpa={PAGE}", "return Inject(13, 0)", handlers={13: handler}).word() == 13


def test_read_retry_after_a_change(guest):
    body = "seen.append(1)\nif len(seen) == 3:\n    p.detach()\n    vm.memory.write_u64(vcpu.gpa, 0x99)\nreturn RETRY"
    assert run(guest, READ, f"gpa={PAGE}", body).word() == 0x99


def test_write_default_value_and_skip(guest):
    assert run(guest, WRITE, f"gpa={PAGE}, access='w'", "seen.append(vcpu.gpa)").word() == 0x55
    assert run(guest, WRITE, f"gpa={PAGE}, access='w'", "return Value(0x66)").word() == 0x66
    assert run(guest, WRITE, f"gpa={PAGE}, access='w'", "return SKIP").word() == 0x11


def test_only_the_range_and_the_access_count(guest):
    source = f"""
        mov rsi, {PAGE:#x}
        mov rax, [rsi]
        mov [rsi + 8], rax
        mov [rsi + 16], rax
        mov rax, [rsi + 8]
    """
    made = run(guest, source + "hlt", f"gpa={PAGE + 8}, length=8, access='w'", "seen.append(vcpu.gpa)")
    assert made.eval("seen") == [PAGE + 8]
    made = run(guest, source + "hlt", f"gpa={PAGE + 8}, length=8, access='r'", "seen.append(vcpu.gpa)")
    assert made.eval("seen") == [PAGE + 8]
    assert made.eval(f"vm.memory.read_u64({PAGE + 16})") == 0x10


def test_read_modify_write_is_a_read_and_a_write(guest):
    made = run(guest, f"mov rsi, {PAGE:#x}\nadd qword ptr [rsi], 5\nhlt", f"gpa={PAGE}, access='w'", "seen.append(1)")
    assert made.eval("seen") == [1]
    assert made.eval(f"vm.memory.read_u64({PAGE})") == 0x15


def test_execution(guest):
    code = CODE + 0x3000
    source = f"mov rax, {code:#x}\ncall rax\nmov [{DATA:#x}], rax\nhlt"
    target = bytes.fromhex("b801000000 0fa2 b802000000 c3".replace(" ", ""))  # mov eax,1; cpuid; mov eax,2; ret
    body = "seen.append(vcpu.rip)"
    made = run(guest, source, f"gpa={code}, length=13, access='x'", body, data={code: target})
    assert made.eval("seen") == [code, code + 5, code + 7, code + 12]
    assert made.word() == 2


def test_two_watched_pages_of_one_instruction(guest):
    source = f"mov rsi, {PAGE + 8:#x}\nmov rdi, {PAGE + 0x1010:#x}\nmovsq\nhlt"
    made = run(guest, source, f"gpa={PAGE}, length=0x2000", "seen.append(vcpu.gpa)")
    assert made.eval("seen") == [PAGE + 8, PAGE + 0x1010]
    assert made.eval(f"vm.memory.read_u64({PAGE + 0x1010})") == 0x11
    assert made.eval(f"[vm.ept.walk({PAGE} + i)[0] & 7 for i in (0, 0x1000)]") == [0, 0]


def test_string_instruction_element_by_element(guest):
    source = f"mov rdi, {PAGE:#x}\nmov ecx, 5\nmov al, 0x77\nrep stosb\nmov [{DATA:#x}], rdi\nhlt"
    made = run(guest, source, f"gpa={PAGE}, access='w'", "seen.append(vcpu.gpa & 0xfff)")
    assert made.eval("seen") == [0, 1, 2, 3, 4]
    assert made.word() == PAGE + 5
    assert made.eval(f"bytes(vm.memory.read({PAGE}, 5))") == b"w" * 5


def test_the_cpus_own_accesses(guest):
    """The stack of an exception handler is watched: the delivery is seen, and happens."""
    source = f"mov rsp, {PAGE + 0x800:#x}\nud2\nhlt"
    handler = f"mov rax, [rsp + 24]\nmov [{DATA:#x}], rax\nhlt"
    body = "seen.append(vcpu.vectoring_info & 0xff)"
    made = run(guest, source, f"gpa={PAGE}, access='w'", body, handlers={6: handler})
    assert made.word() == PAGE + 0x800
    assert made.eval("set(seen)") == {6}


def test_device_page(guest):
    """The I/O APIC: its version is what a policy says, other registers answer as they do."""
    source = f"""
        mov rsi, 0xfec00000
        mov dword ptr [rsi], 1
        mov eax, [rsi + 0x10]
        mov [{DATA:#x}], rax
        mov dword ptr [rsi], 1
        mov eax, [rsi + 0x10]
        mov [{DATA + 8:#x}], rax
        hlt
    """
    body = "seen.append(vcpu.gpa)\nif len(seen) == 1: return Value(0x77)"
    made = run(guest, source, "gpa=0xfec00010, length=4, access='r'", body)
    assert made.eval("len(seen)") == 2
    first, second = made.words(2)
    assert first == 0x77
    assert second >> 16 == 0x17


def test_local_apic_page(guest):
    """With APIC virtualization the page is mapped; watched, its accesses still reach the APIC."""
    source = f"mov rsi, 0xfee00000\nmov eax, [rsi + 0x30]\nmov [{DATA:#x}], rax\nmov dword ptr [rsi + 0x80], 0x20\n"
    source += f"mov eax, [rsi + 0x80]\nmov [{DATA + 8:#x}], rax\nhlt"
    made = run(guest, source, "gpa=0xfee00000", "seen.append(vcpu.gpa & 0xfff)")
    assert made.eval("seen") == [0x30, 0x80, 0x80]
    assert made.word(0) & 0xFF == 0x14
    assert made.word(1) == 0x20


def test_interrupts_wait_for_the_step(guest):
    """A timer interrupts all the time; each access is seen once, none is lost."""
    source = f"""
        mov rsi, 0xfee00000
        mov dword ptr [rsi + 0xf0], 0x1ff
        mov dword ptr [rsi + 0x3e0], 0xb
        mov dword ptr [rsi + 0x320], 0x20040
        mov dword ptr [rsi + 0x380], 60000
        mov rdi, {PAGE:#x}
        mov ecx, 300
        sti
        again:
        inc qword ptr [rdi]
        dec ecx
        jnz again
        cli
        hlt
    """
    handler = f"inc qword ptr [{DATA:#x}]\npush rsi\nmov rsi, 0xfee00000\nmov dword ptr [rsi + 0xb0], 0\npop rsi\niretq"
    made = guest(source, data={PAGE: bytes(8)}, handlers={64: handler})
    made.exec("n = [0]")
    made.policy(f"MEMORY, gpa={PAGE}", "n[0] += 1")
    made.until("vm.state == 'halted' and vcpu.rcx & 0xffffffff == 0", 60000)
    assert made.eval(f"vm.memory.read_u64({PAGE})") == 300
    assert made.eval("n[0]") == 300
    assert made.word() > 15  # and it is not starved: steps take longer than the timer's period


def test_value_for_a_fetch_is_refused(guest):
    made = guest(f"mov rax, {PAGE:#x}\njmp rax", data={PAGE: b"\xf4"})
    made.policy(f"MEMORY, gpa={PAGE}", "return Value(1)")
    assert "no value for an instruction fetch" in made.until("vm.state == 'paused'")


def test_a_device_that_leaves_the_bus_takes_no_policy_along(guest):
    """The local APIC goes as x2APIC mode comes; the I/O APIC is watched meanwhile, and itself afterwards."""
    source = f"""
        mov rsi, 0xfec00000
        mov rbx, {DATA:#x}
        mov ecx, 0x1b
        mov dword ptr [rsi], 1
        mov eax, [rsi + 0x10]
        mov [rbx], rax
        rdmsr
        or eax, 0xc00
        wrmsr
        mov eax, [rsi + 0x10]
        mov [rbx + 8], rax
        sti
        hlt
        mov eax, [rsi + 0x10]
        mov [rbx + 16], rax
        hlt
    """
    made = guest(source, handlers={2: "iretq"})
    made.exec("seen = []")
    made.policy("MEMORY, gpa=0xfec00000, length=4096, access='r'", "seen.append(vcpu.gpa)\nreturn Value(0x77)")
    made.halted()
    assert made.eval("seen") == [0xFEC00010] * 2
    assert made.words(2) == (0x77, 0x77)
    made.exec("p.detach()\nvm.nmi()")
    made.until(f"vm.memory.read_u64({DATA + 16:#x})")
    assert made.word(2) & 0xFF == 0x20  # the version of an I/O APIC


def test_each_instruction_of_a_watched_page_is_seen(guest):
    """Also behind one that the monitor completes, here a read of the I/O APIC, for which no trap of the CPU's comes."""
    lines = ["mov rsi, 0xfec00000", "mov eax, [rsi]", "inc ebx", "mov ecx, [rsi]", "nop", "hlt"]
    code, starts = b"", []
    for line in lines:
        starts.append(PAGE + len(code))
        code += assemble(line, 64, PAGE + len(code))
    made = guest(f"mov rax, {PAGE:#x}\njmp rax", data={PAGE: code})
    made.exec("seen = []")
    made.policy(f"MEMORY, gpa={PAGE}, access='x'", "seen.append(vcpu.rip)")
    made.halted()
    assert made.eval("seen") == starts


def test_a_policy_that_comes_in_the_middle_of_a_step(guest):
    """Attached by the policy whose access is stepped: neither loses its page."""
    made = guest(WRITE + f"\nmov [{DATA + 8:#x}], rax\nmov rdx, [rsi + 16]\nhlt", data=FILL)
    made.exec("seen = []\nmore = []")
    made.policy(
        f"MEMORY, gpa={PAGE}, access='w'",
        "seen.append(1)\nif not more:\n"
        f"    more.append(vm.on(MEMORY, gpa={PAGE}, access='r')(lambda vcpu: seen.append(2)))",
    )
    made.halted()
    assert made.word() == 0x55
    assert made.eval("seen") == [1, 2]


def test_reads_that_fail(guest):
    """The recipe faults: every second read of a device's register, and of a port, is all ones."""
    made = guest(
        f"""
        mov rsi, 0xfed00000
        mov rax, [rsi]
        mov [{DATA:#x}], rax
        mov rax, [rsi]
        mov [{DATA + 8:#x}], rax
        mov rax, [rsi]
        mov [{DATA + 16:#x}], rax
        xor eax, eax
        in al, 0x61
        mov [{DATA + 24:#x}], rax
        in al, 0x61
        mov [{DATA + 32:#x}], rax
        hlt
    """
    )
    made.exec("from recipes import faults")
    made.exec("read, port = faults.memory(vm, 0xFED00000, 8, every=2), faults.port(vm, 0x61, every=2)")
    made.halted()
    first, second, third, own, failed = made.words(5)
    assert first == third != second == 0xFFFFFFFFFFFFFFFF
    assert own != failed == 0xFF
    assert made.eval("(read.hits, port.hits)") == (1, 1)
