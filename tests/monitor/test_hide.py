"""recipes.hide: what a guest learns of its hypervisor."""

import statistics

from bench import DATA

TURNS = 8
# CPUID leaf 1: ECX at DATA + 0x100; then ticks of CPUID, and TSC beside it, each turn.
ASKS = f"""
    mov eax, 1
    cpuid
    mov [{DATA + 0x100:#x}], rcx
    mov eax, 0x40000000
    xor ecx, ecx
    cpuid
    mov [{DATA + 0x108:#x}], rbx
    xor r9d, r9d
again:
    rdtsc
    shl rdx, 32
    lea r8, [rdx + rax]
    mov eax, 1
    cpuid
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, r8
    mov [{DATA:#x} + r9 * 8], rax
    inc r9d
    cmp r9d, {TURNS}
    jb again
    mov ecx, 0x40000000
    rdmsr
    hlt
"""
FAULTS = {13: f"mov qword ptr [{DATA + 0x110:#x}], 13; hlt"}


def _asked(guest, how=None, **options):
    """A guest that has asked; how: of hide()."""
    made = guest(ASKS, handlers=FAULTS, **options)
    if how is not None:
        made.exec(f"from recipes import hide\nh = hide.hide(vm{how})")
    made.halted()
    assert made.word(34) == 13  # MSR 40000000H is #GP
    return made


def _ticks(made):
    """Those of most turns; others have an interrupt of the host in them."""
    return statistics.median(made.words(TURNS))


def test_a_guest_finds_its_hypervisor_as_a_rule(guest):
    made = _asked(guest)
    assert made.word(32) >> 31 & 1 and made.word(33) == int.from_bytes(b"Pcan", "little")
    assert _ticks(made) > 400


def test_a_hidden_one_is_not_found(guest):
    made = _asked(guest, "")
    assert made.word(32) >> 31 & 1 == 0 and made.word(33) != int.from_bytes(b"Pcan", "little")
    assert all(ticks > 0 for ticks in made.words(TURNS))
    assert _ticks(made) < 400
    made.exec("h.stop()")
    assert made.eval("vm.policies") == []


def test_the_time_of_an_exit_shows_where_that_is_wanted(guest):
    assert _ticks(_asked(guest, ", timing=False")) > 1000


def test_all_vcpus_keep_one_tsc(guest):
    made = _asked(guest, "", cpus=2)
    assert made.eval("vm.vcpus[0].clock.skew == vm.vcpus[1].clock.skew < 0")
