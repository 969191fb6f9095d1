"""Policies on exceptions that the monitor injects: what they see, and each answer."""

import pytest
from bench import DATA
from policy_runs import CPUID, STORE, only, run

DENIED = "mov ecx, 0x12345678\nrdmsr\nmov eax, 5\n"
FAULT = f"mov rax, [rsp]\nmov [{DATA + 0x40:#x}], rax\nmov [{DATA + 0x48:#x}], rsp\nhlt"


@pytest.fixture
def denied(guest):
    """denied(body): a guest that has read an MSR that there is not, under this policy."""
    return lambda body: run(guest, DENIED + STORE, "INJECTION", body, handlers={13: FAULT, 6: FAULT})


def fault(made):
    """What the handler has found on top of its stack, and None where it was not called."""
    return made.word(8) if made.word(9) else None


def test_a_denied_msr(guest):
    """Its vector and error code, and the exit that led to it; detached, nothing is left."""
    made = guest(DENIED + STORE, handlers={13: FAULT})
    assert made.eval("vcpu.injections") is None
    made.policy("INJECTION, vector=13", only("vcpu.injecting() & 0x7ff == 0x30d and vcpu.reason == 31"))
    made.policy("INJECTION, vector=6", "pass", "q")
    made.halted()
    assert fault(made) == 0
    assert made.eval("(p.hits, q.hits)") == (1, 0)
    made.exec("p.detach(); q.detach()")
    assert made.eval("vcpu.injections") is None


def test_handled_goes_past_the_instruction(denied):
    made = denied("return HANDLED")
    assert (fault(made), made.word()) == (None, 5)


def test_retry_after_repair(denied):
    made = denied("vcpu.rcx = 0x1b\nreturn RETRY")
    assert (fault(made), made.word(), made.word(2), made.eval("p.hits")) == (None, 5, 0x1B, 1)


def test_another_instead_and_it_is_not_asked_about(denied):
    made = denied("return Inject(13, 0x50)")
    assert (fault(made), made.eval("p.hits")) == (0x50, 1)


def test_pause_and_go_on(guest):
    made = guest(DENIED + STORE, handlers={13: FAULT})
    made.policy("INJECTION", "return PAUSED")
    made.until("vm.state == 'paused'")
    assert fault(made) is None
    made.exec("vm.resume()")
    made.halted()
    assert (fault(made), made.eval("p.hits")) == (0, 1)


def test_a_policy_that_fails(guest):
    """The instruction has not been executed: it exits again."""
    made = guest(DENIED + STORE, handlers={13: FAULT})
    made.policy("INJECTION", "1 // 0")
    assert "policy p failed on injection" in made.until("vm.state == 'paused'")
    made.exec("p.detach(); vm.resume()")
    made.halted()
    assert (fault(made), made.eval("p.hits")) == (0, 1)


def test_an_emulated_access(guest):
    """#PF of an instruction that the monitor executes: from a device's page to one that is not mapped."""
    source = "mov edi, 0xfec00000\nmov rsi, 0x123456789000\n.byte 0xa5\n"
    made = guest(source + STORE, handlers={14: f"mov rbx, cr2\nmov [{DATA + 0x50:#x}], rbx\n" + FAULT})
    made.policy("INJECTION, vector=14", only("vcpu.cr2 == 0x123456789000 and vcpu.entry_error == 0"))
    made.halted()
    assert (fault(made), made.word(10)) == (0, 0x123456789000)


def test_what_a_policy_injects_and_what_the_guest_meets_itself(guest):
    """The first is asked about; the second is the guest's own, though it has exited."""
    made = guest(CPUID, handlers={13: FAULT})
    made.policy("INJECTION", only("vcpu.entry_error == 0x1230"))
    made.policy("CPUID", "return Inject(13, 0x1230)", "q")
    made.halted()
    assert (fault(made), made.eval("p.hits")) == (0x1230, 1)
    made = guest("ud2\n" + STORE, handlers={6: FAULT})
    made.policy("INJECTION", "pass")
    made.policy("EXCEPTION", "pass", "q")
    made.halted()
    assert made.word(9) and made.eval("(p.hits, q.hits)") == (0, 1)
