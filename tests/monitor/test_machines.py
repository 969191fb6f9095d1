"""Machines at the prompt, while other guests run: their life, their memory, what is counted about them."""

import pytest
from bench import DATA

COUNT = f"again:\ninc qword ptr [{DATA:#x}]\nmov eax, 0x40000000\ncpuid\njmp again"

# What is not zero above the first MiB but for its own code and stack, or-ed; then it fills all that.
DIRTY = f"""
    mov rsi, {DATA:#x}
    mov ecx, 0x200000 / 8
    xor ebx, ebx
sum:
    or rbx, [rsi]
    mov rax, 0xa5a5a5a5a5a5a5a5
    mov [rsi], rax
    add rsi, 8
    dec ecx
    jnz sum
    mov [{DATA:#x}], rbx
    hlt
"""

CASES = {
    "unknown key": ("'ram': 1", "ValueError: guest x: ram: unknown key; there are address, "),
    "no memory": ("'memory': None", "ValueError: guest x: memory: is missing"),
    "no size": ("'memory': 0", "ValueError: guest x: memory: must be bytes, a multiple of 4096 from 1 MiB"),
    "odd size": ("'memory': (1 << 20) + 5", "ValueError: guest x: memory: must be bytes"),
    "more than there is": ("'memory': 1 << 34", "OutOfMemory: guest x: memory: 16777216 KiB wanted, "),
    "a wrong type": ("'share': '7'", "ValueError: guest x: share: must be a number from 1 to 10000, not '7'"),
    "protocol": (
        "'protocol': 'dos'",
        "ValueError: guest x: protocol: must be one of linux, multiboot, pvh, flat, bios, uefi, not 'dos'",
    ),
    "console": ("'console': 'com9'", "ValueError: guest x: console: must be com2, com3 or none, not 'com9'"),
    "no address": ("'address': None", "ValueError: guest x: address: is missing: where the flat binary is loaded"),
    "a register without a name": ("'registers': {'': 1}", "ValueError: guest x: registers: must be a dict of"),
    "a link to a number": ("'links': [{'uart': 'com2', 'to': 7}]", "ValueError: guest x: links[0].to: must be a guest"),
    "a link to itself": ("'links': [{'uart': 'com2', 'to': 'x:com2'}]", "ValueError: guest x: links[0].to: com2 leads"),
    "a window of no size": ("'shared': [{'name': 'w', 'size': 0}]", "ValueError: guest x: shared[0].size: must be"),
    "on_reset": ("'on_reset': 'halt'", "ValueError: guest x: on_reset: must be reset, stop or power-off, not 'halt'"),
}


@pytest.fixture
def other(guest):
    """Runs beside the test's guest; advance() is true when it has got further."""
    made = guest(COUNT)
    made.go()

    def advance():
        before = made.word()
        made.bench.run(20)
        return made.word() > before and made.state == "running"

    made.advance = advance
    assert advance()
    return made


def test_the_prompt_lives_beside_a_guest_that_spins_with_interrupts_off(bench, guest):
    """It makes no exit of its own, and the host's interrupts are all that ends its turn."""
    made = guest("cli\nagain: jmp again")
    made.go()
    assert bench.eval("max(range(1000))") == 999
    assert made.state == "running"


def test_what_is_typed_ahead_of_a_sleeper_delays_no_guest(bench, other):
    code = f"""
import select, sys
print('now')
ahead = select.poll()
ahead.register(sys.stdin, select.POLLIN)
while not ahead.poll(0):
    time.sleep_ms(1)
before = {other.ref}.memory.read_u64({DATA:#x})
time.sleep_ms(20)
print({other.ref}.memory.read_u64({DATA:#x}) - before)
"""
    output = bench.monitor.exec(code, 120, lambda data: bench.monitor.console("repl").send("x") if b"n" in data else 0)
    assert int(output.split()[1]) > 0


def test_com1_loses_nothing_while_a_guest_runs(bench, other):
    text = "".join(chr(33 + i % 90) for i in range(20_000))
    output = bench.exec(f"import cpu\ntext = {text!r}\nprint(len(text), cpu.counters()['com1_overruns'])\nprint(text)")
    assert output == f"20000 0\n{text}\n"
    assert other.advance()


def test_create_start_pause_resume_reset_power_off_destroy(bench, guest, other):
    made = guest(COUNT, start=False)
    assert made.eval("(vm.state, vm.why)") == ("off", "not started")
    made.exec("vm.start()")
    bench.run(20)
    first = made.word()
    assert first > 0 and other.advance()
    made.exec("vm.pause()")
    stands = made.word()
    assert other.advance()
    assert (made.state, made.word()) == ("paused", stands)
    made.exec("vm.resume()")
    bench.run(20)
    assert made.word() > stands
    made.exec("vm.pause()")
    stands = made.word()
    made.exec("vm.reset()")
    assert made.eval("(vm.state, vm.starts)") == ("running", 2)
    assert made.word() < stands  # memory is fresh
    assert other.advance()
    made.exec("vm.power_off()")
    stands = made.word()
    assert other.advance()
    assert (made.state, made.word()) == ("off", stands)
    made.exec("vm.start()")
    bench.run(20)
    assert made.word() > 0
    made.destroy()
    assert made.name not in bench.eval("list(vms)")
    assert other.advance()


def test_devices_are_loaded_before_the_first_start_too(guest):
    one = guest("mov edx, 0x92; mov al, 2; out dx, al; mov edx, 0x70; mov al, 0x35; out dx, al; hlt")
    one.halted()
    one.exec("vm.pause()\nkept = vm.pc.save()")
    other = guest("hlt", start=False)
    other.exec("vm.pc.load(kept)")
    assert other.eval("vm.pc.save()['rtc']['index']") == one.eval("vm.pc.save()['rtc']['index']") == 0x35
    other.exec("vm.start()")
    other.halted()


USES = (
    "start()",
    "reset()",
    "exit_counts()",
    "vcpu.rip",
    "memory.read(0, 1)",
    "console.poll()",
    "nmi()",
    "attach()",
    "on(CPUID)(lambda vcpu: None)",
    "flush()",
    "destroy()",
)


def test_a_destroyed_guest_refuses_what_is_asked_of_it(bench, guest, other):
    """Its memory may be somebody else's by then."""
    made = guest("hlt")
    bench.exec(f"dead = {made.ref}\ntheirs = dead.memory\ncpu_ = dead.vcpu\ndead.destroy()")
    assert bench.eval("repr(dead)") == f"<VM {made.name}: destroyed>"
    for use in USES:
        assert bench.refused(f"dead.{use}") == f"RuntimeError: guest {made.name} has been destroyed", use
    assert bench.refused("theirs.read(0, 1)").startswith("ValueError: ")
    assert bench.refused("cpu_.rip") == "TypeError: VCPU is gone"
    bench.exec("dead.pause()\ndead.resume()\ndead.power_off()\ndead.priority = 7")
    assert bench.eval("(dead.state, dead.why)") == ("off", "destroyed")
    assert other.advance()


def test_memory_comes_back_and_is_zeroed(bench, guest, other):
    free = bench.eval("monitor.pages.available")
    made = guest(DIRTY)
    made.halted()
    assert made.word() == 0
    assert made.word(100) == 0xA5A5A5A5A5A5A5A5
    hpa = made.eval("vm.memory.segments[0][2]")
    made.destroy()
    assert bench.eval("monitor.pages.available") == free
    bench.exec("import uctypes\nzeros = bytes(0x10000)")
    assert bench.eval(f"all(uctypes.bytearray_at({hpa} + i, 0x10000) == zeros for i in range(0, 0x400000, 0x10000))")
    again = guest(DIRTY)
    assert again.eval("vm.memory.segments[0][2]") == hpa  # the same memory, and the guest sees zeros
    again.halted()
    assert again.word() == 0
    again.exec("vm.start()")  # nor does its own former life show
    again.halted()
    assert again.word() == 0
    assert other.advance()


def test_exits_are_counted_by_reason(guest, other):
    source = "mov ecx, 7\nagain:\nmov eax, 1\npush rcx\ncpuid\npop rcx\ndec ecx\njnz again\n"
    made = guest(source + "mov dx, 0x80\nout dx, al\nout dx, al\nmov eax, 0x999\nvmcall\nhlt")
    assert made.eval("vm.exit_counts()") == {}
    made.halted()
    counts = made.eval("vm.exit_counts()")
    assert {name: counts[name][0] for name in ("CPUID", "IO_INSTRUCTION", "VMCALL", "HLT")} == {
        "CPUID": 7, "IO_INSTRUCTION": 2, "VMCALL": 1, "HLT": 1,
    }  # fmt: skip
    assert all(ticks > 0 for _, ticks in counts.values())
    assert made.eval("vm.vcpu.guest_ticks") > 0
    assert other.advance()


def test_what_nobody_handles_is_listed(guest, other):
    source = """
        mov dx, 0x1234
        in al, dx
        in al, dx
        mov rsi, 0xd0000000
        mov eax, [rsi + 16]
        mov eax, 0x999
        vmcall
        mov eax, 0x3000
        cpuid
        mov ecx, 0x1234
        rdmsr
        hlt
    """
    made = guest(source, handlers={13: "hlt"})
    made.halted()
    found = made.eval("vm.unclaimed()")
    assert found["ports"] == {(0x1234, False): 2}
    assert found["memory"] == {0xD0000000: 1}
    assert found["hypercalls"] == {0x999: 1}
    assert found["msrs"] == {(0x1234, False): 1}
    assert found["cpuid"] == {0x3000: 1}
    assert other.advance()


@pytest.mark.parametrize("case", CASES)
def test_a_bad_description_is_one_line(bench, other, case):
    change, words = CASES[case]
    free = bench.eval("monitor.pages.available")
    base = "{'name': 'x', 'memory': 1 << 20, 'protocol': 'flat', 'kernel': 'k', 'address': 0, 'console': 'none'}"
    line = bench.refused(f"config = {base}\nconfig.update({{{change}}})\nmonitor.create(config, {{'k': b'\\xf4'}})")
    assert line.startswith(words)
    assert bench.eval("'x' in vms") is False
    assert bench.eval("monitor.pages.available") == free
    assert other.advance()


def test_where_no_vpid_is_left(bench, other):
    base = "{'name': 'no', 'memory': 1 << 20, 'protocol': 'flat', 'kernel': 'k', 'address': 0x7C00}"
    bench.exec("vpids, monitor._vpids = monitor._vpids, []")
    try:
        line = bench.refused(f"monitor.create({base}, {{'k': b'\\xf4'}})")
    finally:
        bench.exec("monitor._vpids = vpids")
    most = bench.eval("monitor._most")
    assert line == f"ValueError: guest no: there are {most} vCPUs, the most that there can be"
    assert bench.eval("'no' in vms") is False
    assert other.advance()


def test_a_name_and_a_console_that_are_taken(bench, guest, other):
    guest("hlt", console="com2")
    base = "'memory': 1 << 20, 'protocol': 'flat', 'kernel': 'k', 'address': 0"
    line = bench.refused(f"monitor.create({{'name': '{other.name}', {base}}}, {{}})")
    assert line == f"ValueError: there is a guest {other.name} already"
    line = bench.refused(f"monitor.create({{'name': 'x', 'console': 'com2', {base}}}, {{}})")
    assert line == "ValueError: guest x: console: com2 has a guest already"
    assert other.advance()


def test_an_image_that_cannot_be_loaded(bench, guest, other):
    made = guest("hlt", start=False, kernel="nothing")
    assert made.refused("vm.start()").endswith("nothing: no boot module of this name for the kernel")
    assert made.state == "off"
    made = guest("hlt", start=False, registers={"xyz": 1})
    assert "register xyz is unknown" in made.refused("vm.start()")
    assert other.advance()


RESET = "mov dx, 0xcf9\nmov al, 6\nout dx, al\nhlt"
RESETS = {"8042": "mov al, 0xfe\nout 0x64, al\nhlt", "port 92h": "in al, 0x92\nor al, 1\nout 0x92, al\nhlt"}
TRIPLE = "ud2"


@pytest.mark.parametrize("how", RESETS)
def test_other_ways_to_a_reset(guest, how):
    made = guest(RESETS[how], on_reset="stop")
    assert "reset by the guest" in made.until("vm.state == 'stopped'")


@pytest.mark.parametrize(
    ("key", "source", "why"),
    [
        ("on_reset", RESET, "reset by the guest"),
        ("on_triple_fault", TRIPLE, "triple fault at 0x100007"),
        ("on_power_off", None, "powered off by the guest"),
    ],
    ids=["on_reset", "on_triple_fault", "on_power_off"],
)
def test_what_follows_the_end_of_a_guest(bench, guest, other, key, source, why):
    if source is None:
        port = bench.eval("__import__('vmm.acpi.tables').acpi.tables.PM_BASE") + 4
        source = f"mov dx, {port:#x}\nmov ax, 0x3400\nout dx, ax\nhlt"
    made = guest(source, **{key: "stop"})
    assert why in made.until("vm.state == 'stopped'")
    assert made.eval("vm.why") == why
    assert made.eval("vm.starts") == 1
    made.destroy()
    made = guest(source, **{key: "power-off"})
    made.until("vm.state == 'off'")
    assert made.eval("(vm.why, vm.starts)") == (why, 1)
    made.destroy()
    made = guest(source, **{key: "reset"})
    made.until("vm.starts > 2")
    made.exec("vm.power_off()")
    assert other.advance()
