"""gdb and the lives of guests: several in one gdb, before the first instruction, resets, ends, gdb that is killed."""

import pytest
from bench import DATA
from gdb_guests import COUNT, INC, LOOP, NOP
from gdb_session import attached


@pytest.fixture
def gdb(bench):
    made = []

    def start(guest, **options):
        made.append(attached(bench.monitor, number(guest), **options))
        return made[-1]

    yield start
    for session in made:
        session.kill()
    bench.run(50)
    assert bench.eval("monitor.gdb.stub") is None


def number(guest):
    return guest.eval("min(vm.vpids)")


def left(guest):
    """What gdb has left in a guest."""
    return guest.eval("(len(vm.hidden), vm.policies, vm.debugger is None, vcpu.dr7)")


NOTHING = (0, [], True, 0x400)


def let_go(session, guest):
    """`continue`, and it has begun."""
    session.type("c")
    guest.until("vm.state == 'running'")


def frame(data: bytes) -> bytes:
    return b"$%b#%02x" % (data, sum(data) & 0xFF)


def test_two_guests_are_two_inferiors(guest, gdb):
    one, two = guest(LOOP), guest(LOOP)
    session = gdb(one)
    out = session("add-inferior", "inferior 2", f"attach {number(two)}", "info threads")
    assert f"({one.name}: vCPU 0, 64-bit)" in out and f"({two.name}: vCPU 0, 64-bit)" in out
    out = session(f"break *{INC:#x}", "c", "inferior 1", f"hbreak *{COUNT:#x}", "c", "p $_inferior")
    assert "Thread 2.1 hit Breakpoint 1" in out and "Thread 1.1 hit Breakpoint 2" in out and "$1 = 1" in out
    assert (one.word(), two.word()) == (1, 0)  # each has gone on alone
    session("set schedule-multiple on", "c", "c", "c")
    assert one.word() > 1 and two.word() > 0
    out = session("detach inferior 2", "info os processes")
    assert left(two) == NOTHING and two.state == "running" and one.state == "paused"
    assert "running" in out and "paused" in out
    out = session("kill inferiors 1")
    assert left(one) == NOTHING and one.state == "off" and two.state == "running", out


def test_before_the_first_instruction_and_run(guest, gdb):
    made = guest(LOOP, start=False)
    session = gdb(made)
    out = session("p/x $rip", f"break *{NOP:#x}", "c", "monitor python monitor.gdb")
    assert "$1 = 0x100000" in out and f"Breakpoint 1, {NOP:#018x}" in out and f"attached to {made.name}" in out
    out = session("kill", f"set remote exec-file {made.name}", "starti", "p/x $rip")
    assert "killed" in out and "$2 = 0x100000" in out and made.state == "paused"
    assert "is stopped by gdb" in made.refused("vm.resume()")


def test_resets_and_power(guest, gdb):
    made = guest(LOOP)
    session = gdb(made)
    out = session(f"break *{COUNT:#x}", f"watch *(long *){DATA + 0x100:#x}", "c", "c", "monitor system_reset")
    assert "stands at its first instruction" in out
    out = session("maintenance flush register-cache", "p/x $rip", "c", "c", "c", "p $rcx")
    assert "$1 = 0x100000" in out and "Breakpoint 1" in out and "New value = 2" in out and "$2 = 2" in out
    session("delete", f"break *{NOP:#x}", f"tbreak *{COUNT:#x}", "c")
    let_go(session, made)
    made.exec("vm.reset()")  # of the prompt, while it runs: the breakpoint is there again
    assert "Breakpoint 3, " in session.wait()
    let_go(session, made)
    made.exec("vm.pause()")
    assert "SIGTRAP" in session.wait()
    let_go(session, made)
    session.interrupt()
    assert "SIGINT" in session.wait()
    let_go(session, made)
    made.exec("vm.power_off()")
    assert "exited normally" in session.wait() and made.state == "off"
    out = session(f"attach {number(made)}", "p/x $rip", "stepi")
    assert "$3 = 0x100000" in out


def test_a_triple_fault_stops_with_the_state_before(guest, gdb):
    made = guest("xor eax, eax\nmov qword ptr [rsp - 16], 0\nlidt [rsp - 16]\nud2")
    session = gdb(made)
    assert "SIGSEGV" in session("c") and "=> " in session("x/i $rip")
    out = session("monitor triple_fault off", "c")
    assert "SIGABRT" in out and made.state in ("stopped", "paused"), out


def test_guests_that_are_destroyed(guest, gdb):
    made = guest(LOOP)
    session = gdb(made)
    session("break *0x0", "hbreak *0x200001", f"watch *(int *){DATA + 0x800:#x}")
    let_go(session, made)
    made.destroy()
    assert "SIGKILL" in session.wait()
    session("delete")
    made = guest(LOOP)
    session(f"attach {number(made)}", f"break *{INC:#x}", "c")
    made.exec("vm.destroy()")
    out = session("x/x 0x100", "stepi", "info threads", "monitor info registers")
    assert "Cannot access memory" in out and "SIGKILL" in out and "No threads" in out and "no guest is attached" in out


def test_gdb_is_killed_or_leaves(guest, gdb):
    made = guest(LOOP)
    points = (f"break *{INC + 0x100:#x}", f"hbreak *{COUNT + 0x100:#x}", f"watch *(int *){DATA + 0x300:#x}")
    session = gdb(made)
    session(*points)
    let_go(session, made)
    assert left(made) != NOTHING
    session.kill()
    made.bench.run(100)
    assert left(made) == NOTHING and made.state == "running" and made.bench.eval("monitor.gdb.stub") is None
    session = gdb(made)
    session(f"break *{INC:#x}", "c", "c")
    session.kill()  # while the guest stands at a breakpoint
    made.bench.run(100)
    assert left(made) == NOTHING and made.state == "running"
    before = made.word()
    session = gdb(made)
    session(*points)
    made.bench.exec("monitor.gdb.detach()")
    assert left(made) == NOTHING and made.state == "running"
    made.bench.run(20)
    assert made.word() > before


def test_broken_packets_are_counted_and_nothing_is_lost(guest, bench):
    made = guest(LOOP)
    made.go()
    console = bench.monitor._endpoints["gdb"].console
    packets = [b"m,", b"P9999=00", b"Z9,0,0", b"vCont;q", b"qXfer:features:read:x:0,1", b"X0,5:}", b"Hgp7.7"]
    for data in (b"$" + b"a" * 9000, b"$g#00", b"\x03" * 50, *map(frame, packets), b"#" * 99):
        console.send(data)
    bench.run(200)
    assert bench.eval("monitor.gdb.bad") >= 2
    assert bench.said().count("[gdb]") <= 3
    console.send(frame(b"D"))
    bench.run(50)
    assert made.state == "running" and left(made) == NOTHING
