"""pcanel.connect(): events of the guest whose functions run here."""

import re
import subprocess
import sys

import pcanel
import pytest
from pcanel.paths import ROOT
from pcanel.repl import RemoteError

_SECONDS = 60
_VICTIM = """
import os, pcanel
monitor = pcanel.connect(RUN)
@monitor.vms[GUEST].on("SYSCALL", comm="sh")
def called(event):
    print("called", flush=True)
    os.kill(os.getpid(), 9)
print("attached", flush=True)
monitor.wait()
"""


def check(shell, guest):
    """Events arrive, once each; the function sees the vCPU and the kernel's objects; its answer is carried out."""
    shell.monitor.wait_booted()
    before = len(shell.monitor.eval(f"vms[{guest!r}].messages"))
    pid = int(shell.run("echo $$"))
    with shell.unwatched():
        with pcanel.connect(shell.monitor.run.id) as monitor:
            vm = monitor.vms[guest]
            _events_are_told(shell, monitor, vm, pid)
            _answers_are_carried_out(shell, monitor, vm)
            _a_function_that_raises(shell, monitor, vm, pid)
            _refusals(monitor, vm)
            assert monitor.evaluate(f"len({vm.words}.policies)") == 0
        assert len(shell.monitor.eval(f"vms[{guest!r}].messages")) == before  # nothing of this is said at the prompt
        _a_client_that_is_killed(shell, guest)


def _type(shell, words):
    shell.console.send(words + "\n")


def _finish(shell, words):
    """What a command that was typed before has printed."""
    shell.console.expect(re.escape(words.encode()) + rb"\n", _SECONDS)
    return shell.console.expect(rb"((?s:.*?))linux:[^\n]*# ", _SECONDS)[1].decode()


def _events_are_told(shell, monitor, vm, pid):
    seen = []

    @vm.break_at("do_sys_openat2", pid=pid, limit=2)
    def opened(event):
        task, prog = event.thread, event.vm.prog
        assert event.argument(1, "char *").type_.type_name() == "char *"
        seen.append((task.comm.string_(), task.pid.value_(), prog.symbol(event.rip).name))
        assert event.rip == event.registers["rip"] == vm.symbols["do_sys_openat2"] and event.kind == "call"
        assert event.register("cr3") and event.run("assert vcpu.rip == %d and vm.state == 'paused'" % event.rip) == ""
        assert [frame.name for frame in prog.stack_trace(task)][0] == "do_sys_openat2"

    words = "echo a > /dev/null; echo b > /dev/null; echo c > /dev/null; echo $((6 * 7))"
    _type(shell, words)
    monitor.wait(_SECONDS, lambda: opened.hits == 2)
    assert _finish(shell, words) == "42\n"  # and the third one asks nobody
    assert seen == [(b"sh", pid, "do_sys_openat2")] * 2
    assert opened.hits == 2

    for kind in ("CPUID", "SYSCALL", "IO"):  # one of each, whatever the guest does at that moment

        @vm.on(kind, once=True)
        def once(event):
            assert event.registers["rip"]

        _type(shell, "/bin/busybox true")
        monitor.wait(_SECONDS, lambda once=once: once.hits)
        _finish(shell, "/bin/busybox true")
        assert once.hits == 1


def _answers_are_carried_out(shell, monitor, vm):
    @vm.on("CALL", at="__x64_sys_getuid", comm="id", once=True)
    def user(event):
        return "Value(4711)"

    words = "id -ru; id -ru"
    _type(shell, words)
    monitor.wait(_SECONDS, lambda: user.hits)
    assert _finish(shell, words) == "4711\n0\n"

    for answer, line in (("Value(4711)", "ValueError: syscall happens once"), ("Walue(1)", "NameError")):

        @vm.on("SYSCALL", comm="sh", once=True)
        def called(event, answer=answer):
            return answer

        _type(shell, words)
        with pytest.raises(RemoteError, match=line):
            monitor.wait(_SECONDS)
        assert _finish(shell, words) == "0\n0\n"

    @vm.on("SYSCALL", comm="sh", once=True)
    def stops(event):
        return "PAUSED"

    _type(shell, words)
    monitor.wait(_SECONDS, lambda: stops.hits)
    assert vm.state == "paused"
    vm.resume()
    assert _finish(shell, words) == "0\n0\n"


def _a_function_that_raises(shell, monitor, vm, pid):
    @vm.on("SYSCALL", pid=pid, once=True)
    def breaks(event):
        raise ZeroDivisionError("of the host")

    _type(shell, "echo $((6 * 7))")
    with pytest.raises(ZeroDivisionError, match="of the host"):
        monitor.wait(_SECONDS)
    assert _finish(shell, "echo $((6 * 7))") == "42\n"


def _refusals(monitor, vm):
    for event, filters, line in (
        ("NOTHING", {}, "event 'nothing' is unknown"),
        ("CPUID", {"port": 3}, "cpuid has no filter port="),
        ("CPUID", {"limit": 0}, "limit=0"),
        ("CALL", {"at": "do_sys_opnat2"}, "no symbol do_sys_opnat2"),
    ):
        with pytest.raises(RemoteError, match=line):
            vm.on(event, **filters)(print)
    with pytest.raises(KeyError, match="there is no guest nobody"):
        monitor.vms["nobody"]


def _a_client_that_is_killed(shell, guest):
    """While the guest stands for it: it goes on, and the policy is gone."""
    code = _VICTIM.replace("RUN", repr(shell.monitor.run.id)).replace("GUEST", repr(guest))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as victim:
        assert victim.stdout.readline() == "attached\n"
        _type(shell, "echo $((6 * 7))")
        assert victim.stdout.readline() == "called\n"
        victim.wait(_SECONDS)
    assert _finish(shell, "echo $((6 * 7))") == "42\n"
    assert shell.monitor.eval(f"len(vms[{guest!r}].policies)") == 0
