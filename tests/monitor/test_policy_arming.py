"""What attaching changes in the VMCS, the bitmaps and EPT, and that detaching puts it back."""

import pytest
from bench import DATA
from policy_runs import CPUID, SIGNATURE

PAGE = 0x300000


def bits(made, msr):
    return made.eval(f"tuple([vm.vcpu.msr_bitmap.exits({msr:#x}, write) for write in (False, True)])")


def entry(made, gpa):
    """(rights, page size) in EPT."""
    return made.eval(f"(lambda e, s: (e & 7, s))(*vm.ept.walk({gpa:#x}))")


EXCEPTION_BITMAP = "vcpu.read(0x4004)"


def test_exception_bitmap(guest):
    made = guest("hlt")
    base = made.eval(EXCEPTION_BITMAP)
    made.policy("EXCEPTION, vector=6", "pass", "a")
    made.policy("EXCEPTION, vector=6", "pass", "b")
    made.policy("EXCEPTION, vector=1", "pass", "c")
    assert made.eval(EXCEPTION_BITMAP) == base | 1 << 6
    made.exec("a.detach()")
    assert made.eval(EXCEPTION_BITMAP) == base | 1 << 6
    made.exec("b.detach()\nc.detach()")
    assert made.eval(EXCEPTION_BITMAP) == base
    made.policy("EXCEPTION", "pass")
    assert made.eval(EXCEPTION_BITMAP) == 0xFFFFFFFF
    made.exec("p.detach()")
    assert made.eval(EXCEPTION_BITMAP) == base


def test_msr_bitmap(guest):
    made = guest("hlt")
    star = 0xC0000081
    assert bits(made, star) == (False, False)
    made.policy(f"RDMSR, msr={star}", "pass", "a")
    assert bits(made, star) == (True, False)
    made.policy(f"WRMSR, msr={star}", "pass", "b")
    made.policy(f"WRMSR, msr={star}", "pass", "c")
    made.exec("a.detach()\nb.detach()\nb.detach()")
    assert bits(made, star) == (False, True)
    made.exec("c.detach()")
    assert bits(made, star) == (False, False)
    made.policy("RDMSR, msr=0x3a", "pass")  # exits anyway
    made.exec("p.detach()")
    assert bits(made, 0x3A) == (True, True)


def test_msr_bitmap_survives_a_change_below(guest):
    """The local APIC's mode changes what is passed through; what a policy watches still exits."""
    made = guest("hlt")
    made.policy("RDMSR, msr=0x802", "pass")
    made.exec("vm.vcpu.msr_bitmap.set(0x802, False, False)")
    assert bits(made, 0x802)[0]
    made.exec("p.detach()")
    assert not bits(made, 0x802)[0]


def test_ept_rights(guest):
    made = guest("hlt")
    assert entry(made, PAGE) == (7, 0x200000)
    made.policy(f"MEMORY, gpa={PAGE + 8}, length=8, access='w'", "pass", "a")
    assert entry(made, PAGE) == (5, 0x1000)
    made.policy(f"MEMORY, gpa={PAGE}, access='r'", "pass", "b")
    assert entry(made, PAGE) == (4, 0x1000)  # there are no pages that are written only
    made.policy(f"MEMORY, gpa={PAGE}, length=0x1001, access='x'", "pass", "c")
    assert entry(made, PAGE) == (0, 0x1000)
    assert entry(made, PAGE + 0x1000) == (3, 0x1000)
    assert entry(made, PAGE + 0x2000) == (7, 0x1000)
    made.exec("c.detach()\nb.detach()")
    assert entry(made, PAGE) == (5, 0x1000)
    made.exec("a.detach()")
    assert entry(made, PAGE) == (7, 0x200000)


WINDOW = 0xD0000000
ORDERS = (("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b"), ("c", "b", "a"))


@pytest.mark.parametrize("access, own", [("ro", 1), ("rw", 3)])
def test_rights_of_a_window_are_narrowed_and_never_set(guest, access, own):
    """Any watchers on any of its pages, gone in any order: a side that may not write never can."""
    board = {"name": "board", "size": 0x2000}
    other = guest("hlt", shared=[board])
    source = f"mov rsi, {WINDOW:#x}\nagain: mov qword ptr [rsi], 0x666\ninc qword ptr [{DATA:#x}]\njmp again"
    made = guest(source, shared=[{**board, "access": access}])
    made.exec(f"""
def entries():
    return [vm.ept.walk({WINDOW} + at)[0] & 7 for at in (0, 0x1000)]
def watch(rights, length=0x1000):
    return vm.on(MEMORY, gpa={WINDOW}, length=length, access=rights)(lambda vcpu: None)
seen = []
for order in {ORDERS!r}:
    held = {{"a": watch("x"), "b": watch("w", 0x2000), "c": watch("r")}}
    seen.append(entries())
    for name in order:
        held[name].detach()
        seen.append(entries())
""")
    assert made.eval("entries()") == [own, own]
    seen = made.eval("seen")
    assert all(first & ~own == 0 and second & ~own == 0 for first, second in seen)
    assert seen[::4] == [[0, own & 5]] * len(ORDERS)
    assert seen[3::4] == [[own, own]] * len(ORDERS)
    made.exec("x, w = watch('x'), watch('w')")
    made.until(f"vm.memory.read_u64({DATA:#x}) > 3")
    made.exec("x.detach()")
    count = made.word()
    made.until(f"vm.memory.read_u64({DATA:#x}) > {count + 3}")
    made.exec("w.detach()")
    count = made.word()
    made.until(f"vm.memory.read_u64({DATA:#x}) > {count + 3}")
    expected = b"\x66\x06" if access == "rw" else b"\0\0"
    assert other.eval("bytes(monitor.windows['board'].view[:2])") == expected
    assert made.eval("w.hits") > 0


def test_a_page_that_the_guest_maps_again_is_still_watched(guest):
    """With APIC virtualization the local APIC's page is in EPT in xAPIC mode only."""
    mode = "mov ecx, 0x1b; mov eax, {:#x}; xor edx, edx; wrmsr\n"
    source = "".join(mode.format(0xFEE00100 | bits) for bits in (0, 0x800))
    made = guest(source + "mov rsi, 0xfee00000; mov eax, [rsi + 0x30]\nhlt")
    made.exec("seen = []")
    made.policy("MEMORY, gpa=0xfee00000", "seen.append(vcpu.gpa & 0xfff)")
    made.halted()
    assert made.eval("seen") == [0x30]


def test_table_and_cost(guest):
    """The dispatch table is what it was; an unwatched exit never meets a hook."""
    made = guest(CPUID)
    handlers = "[id(handler) for handler in vm.exits.tables[0]]"
    before = made.eval(handlers)
    made.policy("VMCALL", "pass")
    assert [i for i, (a, b) in enumerate(zip(before, made.eval(handlers), strict=True)) if a != b] == [18]
    made.exec("p.detach()")
    assert made.eval(handlers) == before
    assert made.eval("(vm.policies, p.attached)") == ([], False)


def test_attach_and_detach_while_the_guest_runs(bench, guest):
    made = guest(f"""
        again:
        mov eax, 0x40000000
        cpuid
        mov [{DATA:#x}], rbx
        inc qword ptr [{DATA + 8:#x}]
        jmp again
    """)
    made.go()
    made.until(f"vm.memory.read_u64({DATA + 8:#x}) > 10")
    for value in (11, 22):
        made.policy("CPUID", f"return Value((0, {value}, 0, 0))")
        bench.run(5)
        assert made.word(0) == value
        made.exec("p.detach()")
        bench.run(5)
        assert made.word(0) == SIGNATURE
    assert made.eval("p.hits") > 1


def test_detach_from_inside(guest):
    made = guest("cpuid\nmov eax, 0x40000000\n" + CPUID)
    made.policy("CPUID", "p.detach()")
    made.halted()
    assert made.eval("p.hits") == 1
    assert made.word(1) == SIGNATURE
