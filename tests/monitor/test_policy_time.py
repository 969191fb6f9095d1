"""Events TIME and MODE, and the recipes that profile a guest and record what it touches."""

SPIN = """
    mov esi, 1000000
first:
    dec esi
    jnz first
    hlt
"""


def test_time_comes_every_so_many_ticks(guest):
    made = guest("here: jmp here")
    made.exec("seen = []")
    made.policy("TIME, ticks=100000", "seen.append((vcpu.clock.now(), vcpu.rip))")
    made.until("len(seen) >= 8")
    made.exec("p.detach()\nn = len(seen)\ntime.sleep_ms(20)")
    assert made.eval("len(seen) == n"), "detached"
    seen = made.eval("seen")
    spans = [b[0] - a[0] for a, b in zip(seen, seen[1:], strict=False)]
    assert 95000 < sorted(spans)[len(spans) // 2] < 130000, spans
    assert len({rip for _, rip in seen[1:]}) == 1
    assert not made.eval("any(timer.deadline for timer in vm.clock._timers)")


def test_periods_of_their_own_and_filters(guest):
    made = guest("here: jmp here")
    made.policy("TIME, ticks=50000", "pass", "a")
    made.policy("TIME, ticks=200000", "pass", "b")
    made.policy("TIME, ticks=50000, cpl=3", "pass", "c")
    made.policy("TIME, ticks=50000, every=2, limit=3", "pass", "d")
    made.until("b.hits >= 5")
    a, b, c, d = made.eval("(a.hits, b.hits, c.hits, d.hits)")
    assert 3 * b / 2 < a <= 4 * b + 4 and c == 0 and d == 3  # in between the guest stands still for lines
    assert not made.eval("d.attached")


def test_time_goes_on_at_hlt(guest):
    made = guest("sti\nhere: hlt\njmp here")
    made.policy("TIME, ticks=100000", "pass")
    made.until("p.hits >= 3")
    assert made.state == "halted"


def test_answers_of_time(guest):
    made = guest("here: jmp here", handlers={6: "hlt"})
    made.policy("TIME, ticks=60000", "return PAUSED if p.hits == 2 else HANDLED")
    made.exec("vm.resume()\nwait(vm, lambda: vm.state == 'paused')")
    assert made.eval("(vm.state, p.hits)") == ("paused", 2)
    made.exec("p.detach()")
    made.policy("TIME, ticks=60000", "return Inject(6)")
    made.exec("vm.resume()\nwait(vm, lambda: vm.state == 'halted')")
    assert made.state == "halted"


def test_bad_filters_of_time(guest):
    made = guest("hlt")
    assert "names its ticks=" in made.refused("vm.on(TIME)")
    assert "a number from 5000" in made.refused("vm.on(TIME, ticks=10)")
    assert "SDM Vol. 3C" in made.exec("print(repr(TIME))")


REAL = """
    cli
    lgdt [table]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    and al, 0xfe
    mov cr0, eax
    hlt
table:
    .short 0
    .long 0
"""
LEAVE = """
    mov rax, cr0
    btr eax, 31
    mov cr0, rax
    hlt
"""


def test_changes_of_mode(guest):
    made = guest(REAL.replace("lgdt [table]", "").split("table:")[0], bits=16)
    made.exec("seen = []\nfrom vmm.policies.events.mode import change")
    made.policy("MODE", "seen.append(change(vcpu))")
    made.policy("MODE, to='real'", "pass", "back")
    made.policy("MODE, to='long'", "pass", "never")
    made.halted()
    assert made.eval("seen") == [("real", "protected"), ("protected", "real")]
    assert made.eval("(back.hits, never.hits)") == (1, 0)


def test_leaving_long_mode_can_be_refused(guest):
    made = guest(LEAVE)
    made.policy("MODE, before='long'", "return HANDLED")
    made.halted()
    assert made.eval("p.hits") == 1
    assert made.eval("vm.vcpu.cr0 >> 31") == 1
    assert "real, protected or long" in made.refused("vm.on(MODE, to='virtual')")


def test_profile(guest):
    made = guest(SPIN)
    made.exec("from vmm.recipes.profile import Profile\nprofile = Profile(vm, 50000)")
    made.halted()
    made.exec("time.sleep_ms(10)\nprofile.stop()")
    samples, idle, counts = made.eval("(profile.samples, profile.idle, profile.counts)")
    assert samples > 20 and idle >= 1 and sum(counts.values()) + idle == samples
    assert len(counts) <= 3, "the loop has two instructions"
    text = made.exec("print(profile)")
    assert "one every 50000 ticks" in text and "(at HLT)" in text, text


def test_record_of_hardware(guest):
    made = guest(
        """
    mov dx, 0x3fd
    in al, dx
    in al, dx
    mov al, 1
    out 0x80, al
    mov eax, 0x40000000
    cpuid
    mov ecx, 0x1b
    rdmsr
    mov ebx, 0xfec00000
    mov dword ptr [rbx], 1
    mov eax, [rbx + 16]
    mov eax, 0x7777
    vmcall
    hlt
"""
    )
    made.exec("from vmm.recipes.hardware import Record\nr = Record(vm)")
    made.halted()
    rows = {(row[0], row[1], row[2]): row[3:5] for row in made.eval("r.rows()")}
    assert rows["port", "0x3fd", "read 1"] == (2, "Uart16550")
    assert rows["port", "0x80", "write 1"][0] == 1
    assert rows["cpuid", "0x40000000", "read"][0] == 1
    assert rows["msr", "0x1b IA32_APIC_BASE", "read"][0] == 1
    assert rows["hypercall", "0x7777", "call"][0] == 1
    assert rows["memory", "0xfec00000", "write"][0] == 1
    assert [row[0] for row in made.eval("r.rows('port')")] == ["port", "port"]
    lines = made.exec("print(r.csv())").splitlines()
    assert lines[0] == "kind,which,access,count,device,first at,symbol" and lines[1].startswith("port,0x80,write 1,1,")
    made.exec("r.stop()\nvm.reset()\nwait(vm, lambda: vm.state == 'halted')")
    assert made.eval("r.rows('cpuid')[0][3]") == 1, "stopped"
    assert "kind 'disk'" in made.refused("r.table('disk')")
