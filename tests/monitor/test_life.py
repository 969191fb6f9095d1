"""The life of a guest where it goes wrong: one that cannot be made or started, and what becomes of one that has been
paused, switched off or reset, also by its own hypercalls."""

import metronome
import pytest
from bench import CODE, DATA, STACK, Guest

CALL = 0x700
RING = 0x100
WINDOW = 0xD0000000
BUSY = f"again: inc qword ptr [{DATA:#x}]; jmp again"

# Notes what is taken from the monitor's memory for a guest that cannot be made.
RECORD = """
taken = []
take = monitor.pages.take
def record(size, *align):
    hpa = take(size, *align)
    taken.append((hpa, size))
    return hpa
monitor.pages.take = record
"""
CLEAN = """
import uctypes
zeros = bytes(0x1000)
dirty = [hpa + at for hpa, size in taken for at in range(0, size, 0x1000)
         if bytes(uctypes.bytearray_at(hpa + at, 0x1000)) != zeros]
print(dirty)
"""
FAILS = {
    "another size": "'size': 0x1000",
    "a gpa in RAM": "'size': 0x2000, 'gpa': 0x1000",
    "more than there is": "'name': 'other', 'size': 1 << 30",
}


@pytest.mark.parametrize("how", FAILS)
def test_a_guest_that_cannot_be_made_leaves_nothing(bench, guest, how):
    """The vCPU of one was there already: no CPU may write into what is given back."""
    first = guest(BUSY, shared=[{"name": "board", "size": 0x2000}])
    first.go()
    before = bench.eval("(monitor.pages.available, len(monitor._vpids))")
    config = "{'name': 'no', 'memory': 1 << 20, 'protocol': 'flat', 'kernel': 'k', 'address': 0x7C00}"
    shared = f"{{'name': 'board', {FAILS[how]}}}"
    bench.exec(RECORD)
    assert "shared" in bench.refused(
        f"config = {config}\nconfig['shared'] = [{shared}]\ntry:\n    monitor.create(config, {{'k': b'\\xf4'}})\n"
        "finally:\n    del monitor.pages.take"
    ) or how.startswith("more")
    assert bench.eval("(monitor.pages.available, len(monitor._vpids))") == before
    assert bench.eval("len(taken) > 8") == (how == "another size")
    assert bench.exec(f"time.sleep_ms(20)\ngc.collect()\n{CLEAN}") == "[]\n"
    large = guest(BUSY, memory=8 << 20)
    large.go()
    bench.exec("gc.collect()\ntime.sleep_ms(50)\ngc.collect()")
    for made in (first, large):
        count = made.word()
        bench.run(30)
        assert made.word() > count and made.state == "running"
    large.destroy()
    assert bench.eval("monitor.pages.available") == before[0]
    assert bench.exec(f"time.sleep_ms(20)\ngc.collect()\n{CLEAN}") == "[]\n"


ANSWERS = f"""
    mov [{DATA + 8:#x}], rax
    mov [{DATA + 16:#x}], rsp
    mov eax, {CALL:#x}
    vmcall
    mov [{DATA:#x}], rax
    {BUSY.replace(f"{DATA:#x}", f"{DATA + 24:#x}")}
"""


def called(made, act):
    """Let the guest's first hypercall do this; what it answers is 77."""
    body = f"if vcpu.vm.starts == 1:\n        {act}\n    return 77"
    made.exec(f"def call(vcpu):\n    {body}\nvm.hypercalls.add({CALL:#x}, call)")


def test_a_hypercall_that_pauses_its_guest(bench, guest):
    made = guest(ANSWERS)
    called(made, "vcpu.vm.pause()")
    made.until("vm.state == 'paused'")
    bench.run(20)
    assert made.eval("(vm.why, vcpu.rax)") == ("by pause()", 77)
    assert made.words(4) == (0, 0, STACK, 0)
    made.exec("vm.resume()\ntime.sleep_ms(20)")
    assert made.word() == 77 and made.word(3) > 0


def test_a_hypercall_that_switches_its_guest_off(bench, guest):
    """A timer is armed, and HLT comes next: it wakes up no more."""
    tick = f"mov eax, {CALL:#x}\nvmcall\ncli\nhlt"
    made = metronome.start(guest, tick, go=False)
    called(made, "vcpu.vm.power_off()")
    made.until("vm.state == 'off'")
    made.exec("vm.used()\ntime.sleep_ms(20)")
    assert made.eval("(vm.state, vm.why, vm.powered, vm.used()[2])") == ("off", "by power_off()", False, 0)
    assert made.word(metronome.COUNT) == 1
    made.exec("vm.resume()\ntime.sleep_ms(10)")
    assert made.state == "off"


def test_a_hypercall_that_resets_its_guest(guest):
    made = guest(ANSWERS)
    called(made, "vcpu.vm.reset()")
    made.until(f"vm.starts == 2 and vm.memory.read_u64({DATA + 24:#x})")
    assert made.state == "running"
    assert made.words(3) == (77, 0, STACK)


def test_a_hypercall_whose_reset_fails(bench, guest):
    made = guest(ANSWERS)
    called(made, "vcpu.vm.blobs = {}\n        vcpu.vm.reset()")
    assert "LoadError" in made.until("vm.state != 'running'")
    assert made.eval("(vm.state, vm.powered)") == ("off", False)
    made.exec("vm.resume()")
    assert made.state == "off"


def test_what_a_guest_was_before_its_reset_is_forgotten(guest):
    """Paused at HLT, reset, stopped for a triple fault: by then it does not wait for an event."""
    made = guest(f"mov eax, {CALL:#x}; vmcall; cmp eax, 1; jne dies; hlt; dies: ud2", on_triple_fault="stop")
    made.exec(f"vm.hypercalls.add({CALL:#x}, lambda vcpu: vcpu.vm.starts)")
    made.halted()
    made.exec("vm.pause()\nvm.reset()")
    made.until("vm.state == 'stopped'")
    assert made.exec("vm.resume()\nprint(vm.state)") == "running\n"
    made.until("vm.state == 'stopped'")
    assert made.eval("vm.vcpu.rip") > CODE


LINK = [{"uart": "com2", "to": "near:com2"}]
NEAR = f"""
again:
    mov eax, {RING:#x}
    xor ebx, ebx
    vmcall
    mov [{DATA:#x}], rax
    mov dx, 0x2fe
    in al, dx
    movzx eax, al
    mov [{DATA + 8:#x}], rax
    jmp again
"""
WAITS = """
class Waits:
    def __contains__(self, name):
        while True:
            pass
vm.blobs = Waits()
print('waits')
try:
    vm.start()
except KeyboardInterrupt:
    print('interrupted')
"""


@pytest.fixture
def cable(bench, guest):
    """A guest that looks at its modem inputs and rings; the one at the far end, which raises its lines."""
    shared = [{"name": "board", "size": 0x1000, "gsi": 5}]
    far = guest("mov dx, 0x2fc; mov al, 3; out dx, al; hlt", shared=shared, links=LINK)
    bench.exec(f"far = {far.ref}\nblobs = far.blobs")
    near = Guest(bench, "near", NEAR, shared=shared)
    near.go()
    far.halted()
    yield near, far
    near.destroy()


def seen(near):
    """(sides told by a ring, modem inputs) as the guest has them now."""
    near.bench.run(20)
    return near.words(2)


@pytest.mark.parametrize("how", ["its image is bad", "Ctrl-C"])
def test_a_start_that_fails_is_a_guest_that_is_off(bench, cable, how):
    near, far = cable
    assert seen(near) == (1, 0xB0)
    if how == "Ctrl-C":
        repl = bench.monitor.console("repl")
        code = f"vm = {far.ref}\n{WAITS}"
        printed = bench.monitor.exec(code, 120, lambda data: repl.send("\x03") if b"s" in data else None)
        assert "interrupted" in printed
    else:
        assert "no boot module of this name" in far.refused("vm.blobs = {}\nvm.start()")
    assert far.eval("(vm.state, vm.why, vm.powered)") == ("off", "not started", False)
    assert bench.eval("[end.powered for end in monitor.links.ends(far.name)]") == [False]
    assert seen(near)[1] & 0xF0 == 0
    assert seen(near)[0] == 0
    rung = far.eval("vm.windows[0].rung")
    bench.run(10)
    assert far.eval("vm.windows[0].rung") == rung
    far.exec("vm.blobs = blobs\nvm.start()")
    far.halted()
    assert seen(near)[0] == 1 and seen(near)[1] & 0xF0 == 0xB0


def test_a_pause_is_no_lateness(guest):
    made = metronome.start(guest)
    made.exec("time.sleep_ms(20)\nvm.pause()\ntime.sleep_ms(100)\nvm.used()\nvm.resume()\ntime.sleep_ms(20)")
    wakes, timed, late, latest = made.eval("vm.used()[2:]")
    assert timed > 10
    assert latest < metronome.PERIOD
