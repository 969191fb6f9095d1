"""RAM that is mapped at its first touch: what is touched, what that costs in exits, and what sees it besides."""

import pytest
import vtx
from bench import CODE, DATA, HANDLERS, IDT, STACK

PAGE = 0x1000
FAR = 0x300000


def pages(guest):
    """The numbers of the pages that the guest has touched."""
    return {(gpa + at) // PAGE for gpa, size in guest.eval("vm.touched()") for at in range(0, size, PAGE)}


def violations(guest):
    return guest.eval("vm.exit_counts().get('EPT_VIOLATION', (0, 0))[0]")


@pytest.mark.parametrize("bits", [64, 16])
def test_each_page_exits_once(guest, bits):
    if bits == 16:
        data = 0x20000
        source = "mov ax, 0x2000\nmov ds, ax\nmov ecx, 9\nagain:\nmov al, [0]\nmov [0x1000], al\nloop again\nhlt"
    else:
        data = FAR
        source = f"mov ecx, 9\nmov rsi, {FAR:#x}\nagain:\nmov rax, [rsi]\nmov [rsi + {PAGE:#x}], rax\nloop again\nhlt"
    made = guest(source, bits=bits, demand_paging=True, data={data: b"\x11" * 8})
    assert pages(made) == set()
    made.halted()
    found = pages(made)
    assert {data // PAGE, data // PAGE + 1} < found
    assert len(found) == violations(made) < 10  # and its code; 64-bit code has page tables, too
    assert bytes(made.eval(f"vm.memory.read({data + PAGE:#x}, 1)")) == b"\x11"
    made.exec("vm.reset()\nvm.pause()")
    assert pages(made) == set()
    made.exec("vm.resume()")
    made.halted()
    assert len(pages(made)) == len(found)


def test_without_it_nothing_exits(guest):
    made = guest(f"mov rax, [{FAR:#x}]\nhlt")
    made.halted()
    assert violations(made) == 0
    assert "demand_paging = true" in made.refused("vm.touched()")


def test_an_exception_whose_delivery_touches_pages(guest):
    """IDT, handler and stack are all new to it, and the event is delivered nevertheless, once."""
    source = f"mov rsp, {STACK - PAGE:#x}\nmov rbx, {DATA:#x}\nmov qword ptr [rbx], 0\nud2\nhlt"
    handler = f"inc qword ptr [{DATA:#x}]\nadd qword ptr [rsp], 2\niretq"
    made = guest(source, handlers={6: handler}, demand_paging=True)
    made.halted()
    assert made.word() == 1
    touched = pages(made)
    assert {IDT // PAGE, HANDLERS // PAGE, CODE // PAGE, DATA // PAGE, (STACK - PAGE) // PAGE - 1} <= touched
    assert len(touched) == violations(made)


@pytest.mark.skipif(vtx.engine() == "bochs27", reason="2.7 reports the event before it (docs/engines.md)")
def test_an_interrupt_whose_delivery_touches_pages(guest):
    """It is the interrupt that is delivered after the violation, and not the event before it once more."""
    source = f"""
        mov rsi, 0xfee00000
        mov dword ptr [rsi + 0xf0], 0x1ff
        mov qword ptr [{DATA:#x}], 0
        ud2
        mov rsp, {STACK - PAGE:#x}
        sti
        mov dword ptr [rsi + 0x300], 0x40040
        nop
        cli
        hlt
    """
    handlers = {
        6: f"inc qword ptr [{DATA:#x}]\nadd qword ptr [rsp], 2\niretq",
        0x40: f"inc qword ptr [{DATA + 8:#x}]\nmov dword ptr [rsi + 0xb0], 0\niretq",
    }
    made = guest(source, handlers=handlers, demand_paging=True)
    made.halted()
    assert made.words(2) == (1, 1)
    assert len(pages(made)) == violations(made)


def test_a_policy_on_a_page_that_is_new(guest):
    source = f"mov rax, [{FAR + 8:#x}]\nmov [{DATA:#x}], rax\nhlt"
    made = guest(source, demand_paging=True, data={FAR: bytes(range(16))})
    made.exec("seen = []")
    made.policy(f"MEMORY, gpa={FAR}", "seen.append(vcpu.gpa)")
    for turn in (1, 2):
        made.halted()
        assert made.eval("seen") == [FAR + 8] * turn
        assert made.word() == 0x0F0E0D0C0B0A0908
        assert len(pages(made)) > 2
        made.exec(f"vm.reset()\nvm.memory.write({FAR}, bytes(range(16)))\nvm.pause()")
