"""Event INTERRUPT: what is injected, in its order, with each answer; with and without APIC virtualization's help."""

import pytest
from bench import DATA, deadline_timer
from pcanel.vmm_import import importable

with importable():
    from vmm.vtx.x86 import APIC_BASE as APIC


def handler(slot: int) -> str:
    """Counts in a word of DATA, notes the order, and ends the interrupt."""
    return f"""
        push rax
        push rbx
        inc qword ptr [{DATA + 8 * slot:#x}]
        mov rax, [{DATA:#x}]
        inc rax
        mov [{DATA:#x}], rax
        mov rbx, {slot}
        mov [rax * 8 + {DATA + 0x80:#x}], rbx
        mov rbx, {APIC:#x}
        mov dword ptr [rbx + 0xb0], 0
        pop rbx
        pop rax
        iretq
    """


SEND = """
    mov dword ptr [rsi + 0x300], 0x40050
    mov dword ptr [rsi + 0x300], 0x40040
    mov dword ptr [rsi + 0x300], 0x40060
"""
TWICE = f"""
    mov rsi, {APIC:#x}
    mov dword ptr [rsi + 0xf0], 0x1ff
    {SEND}
    sti
    nop
    nop
    cli
    {SEND}
    sti
    nop
    nop
    cli
    hlt
"""
UNDEFINED = f"inc qword ptr [{DATA + 40:#x}]\niretq"
HANDLERS = {0x40: handler(1), 0x50: handler(2), 0x60: handler(3), 2: "iretq", 6: UNDEFINED}


def order(made, count):
    return made.words(count, 17)


def all_came(made):
    """Each interrupt twice, the highest vector first."""
    assert made.words(4) == (6, 2, 2, 2)
    assert order(made, 6) == (3, 2, 1, 3, 2, 1)


def test_each_is_seen_in_its_order(guest):
    made = guest(TWICE, handlers=HANDLERS)
    made.exec("seen = []\nfrom vmm.vtx.frame import DATUM")
    made.policy("INTERRUPT", "seen.append(vcpu.scheduled.get(DATUM) & 0xFF)")
    made.policy("INTERRUPT, vector=0x50", "pass", "q")
    made.halted()
    all_came(made)
    assert made.eval("seen") == [0x60, 0x50, 0x40] * 2
    assert made.eval("q.hits") == 2


RESETS = "mov eax, 0x700; vmcall; cmp eax, 6; ja stays; ud2\nstays:\n" + TWICE
STAYS_UP = "vm.resume()\nprint('is', wait(vm, lambda: vm.state == 'halted' and not vm.backoff.held, 3000), vm.starts)"


@pytest.mark.parametrize("attached", ("before", "while it is held"))
def test_a_guest_that_was_held_in_reset_is_seen(guest, attached):
    """Both the hold and the policies replace a handler for the time; neither ends the other's."""
    made = guest(RESETS, on_triple_fault="reset")
    made.exec("vm.hypercalls.add(0x700, lambda vcpu: vcpu.vm.starts)")
    if attached == "while it is held":
        made.exec("vm.resume()\nwait(vm, lambda: vm.backoff.held and vm.starts > 4)")
        made.exec("vm.pause()\nassert vm.backoff.held")
    made.policy("INTERRUPT", "return HANDLED")  # a guest that is loaded again has no IDT
    assert made.exec(STAYS_UP).split("is ")[-1].split() == ["True", "7"]
    assert made.eval("p.hits") == 6


def test_detaching_gives_delivery_back_to_the_cpu(guest):
    made = guest(TWICE, handlers=HANDLERS)
    made.policy("INTERRUPT, limit=2", "pass")
    made.halted()
    all_came(made)
    assert made.eval("(p.hits, p.attached)") == (2, False)
    made.exec("vm.reset()\nwait(vm, lambda: vm.state == 'halted')")


def test_one_is_dropped(guest):
    made = guest(TWICE, handlers=HANDLERS)
    made.policy("INTERRUPT, vector=0x50", "return HANDLED")
    made.halted()
    assert made.words(4) == (4, 2, 0, 2)
    assert order(made, 4) == (3, 1, 3, 1)
    assert made.eval("p.hits") == 2


def test_an_exception_comes_first(guest):
    made = guest(TWICE, handlers=HANDLERS)
    made.policy("INTERRUPT, vector=0x60", "if p.hits == 1: return Inject(6)")
    made.halted()
    assert made.words(4) == (6, 2, 2, 2)
    assert made.word(5) == 1
    assert made.eval("p.hits") == 3


def test_paused_before_it(guest):
    made = guest(TWICE, handlers=HANDLERS)
    made.policy("INTERRUPT, vector=0x50, once=True", "return PAUSED")
    made.until("vm.state == 'paused' and p.hits")
    assert made.words(4) == (1, 0, 0, 1)
    made.exec("vm.resume()\nwait(vm, lambda: vm.state == 'halted')")
    assert order(made, 6) == (3, 2, 1, 3, 2, 1)


def test_nmis_and_a_timer_at_hlt(guest):
    """With IF clear up to the HLT: held for 50,000 ticks before it, the guest would take its only interrupt there."""
    tick = "inc qword ptr [0x200000]\nmov ecx, 0x80b\nxor eax, eax\nxor edx, edx\nwrmsr\niretq"
    source = f"""
        {deadline_timer(0x50)}
    again:
        cli
        rdtsc
        add eax, 50000
        mov ecx, 0x6e0
        wrmsr
        sti
        hlt
        jmp again
    """
    made = guest(source, handlers={0x50: tick, 2: "iretq"})
    made.policy("INTERRUPT, vector=0x50", "pass")
    made.policy("INTERRUPT, vector=2", "pass", "n")
    made.until("p.hits >= 20")
    made.exec("vm.nmi()\nwait(vm, lambda: n.hits)\nvm.pause()")
    assert made.eval("n.hits") == 1
    assert 0 <= made.eval("p.hits") - made.word() <= 1
    made.exec("p.detach()\nn.detach()")
    before = made.word()
    made.exec(f"vm.resume()\nwait(vm, lambda: vm.memory.read_u64({DATA:#x}) > {before + 20})")
    assert made.word() > before + 20


def test_arrivals_are_seen_when_they_come(guest):
    """Before the guest can take any of them, and each once; one that is dropped is not delivered."""
    made = guest(TWICE, handlers=HANDLERS)
    made.exec("seen = []\nfrom vmm.vtx.frame import DATUM")
    made.policy("ARRIVAL", "seen.append((vcpu.scheduled.get(DATUM), vcpu.rflags >> 9 & 1))")
    made.policy("ARRIVAL, vector=0x50", "if q.hits == 1: return HANDLED", "q")
    made.halted()
    assert made.eval("seen") == [(0x50, 0), (0x40, 0), (0x60, 0)] * 2
    assert made.eval("q.hits") == 2
    assert made.words(4) == (5, 2, 1, 2) and order(made, 5) == (3, 1, 3, 2, 1)


def test_arrivals_and_deliveries_at_once(guest):
    made = guest(TWICE, handlers=HANDLERS)
    made.exec("seen = []\nfrom vmm.vtx.frame import DATUM")
    made.policy("ARRIVAL", "seen.append(-(vcpu.scheduled.get(DATUM) & 0xFF))")
    made.policy("INTERRUPT", "seen.append(vcpu.scheduled.get(DATUM) & 0xFF)", "q")
    made.halted()
    assert made.eval("seen") == [-0x50, -0x40, -0x60, 0x60, 0x50, 0x40] * 2
    assert made.words(4) == (6, 2, 2, 2)
