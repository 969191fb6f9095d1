"""A policy of a guest that runs in the middle of another's exit: what it may do to that one."""

import metronome
import pytest

THINKS = """
thinking = False
@vm.on('cpuid')
def think(vcpu):
    global thinking
    thinking = True
    for _ in range(3000):
        pass
    thinking = False
"""
MEDDLES = """
refused = []
@vm.on('vmcall', number=0x777)
def meddle(vcpu):
    if thinking and len(refused) < 3:
        try:
            {act}
        except RuntimeError as error:
            refused.append(str(error))
"""


@pytest.mark.parametrize(("act", "word"), [("victim.destroy()", "destroyed"), ("victim.reset()", "started")])
def test_an_interrupted_guest_is_left_whole(bench, guest, act, word):
    victim = guest("again: cpuid\ninc qword ptr [0x200000]\njmp again")
    victim.exec(THINKS + "victim = vm")
    ticking = metronome.start(guest, "push rax\nmov eax, 0x777\nvmcall\npop rax")
    ticking.exec(MEDDLES.format(act=act))
    victim.go()
    bench.run(100)
    assert bench.eval("refused") == [f"guest {victim.name} is in the middle of an exit: it cannot be {word} there"] * 3
    count = victim.word()
    bench.run(50)
    assert victim.word() > count
    assert victim.state == "running"


def test_a_pause_holds_when_the_exit_is_done(bench, guest):
    victim = guest("again: cpuid\ninc qword ptr [0x200000]\njmp again")
    victim.exec(THINKS + "victim = vm")
    ticking = metronome.start(guest, "push rax\nmov eax, 0x777\nvmcall\npop rax")
    ticking.exec(MEDDLES.format(act="victim.pause()\n            refused.append('paused')"))
    victim.go()
    bench.run(100)
    assert victim.state == "paused"
    assert bench.eval("thinking") is False
    count = victim.word()
    bench.run(20)
    assert victim.word() == count
    victim.exec("vm.resume()")
    assert ticking.state in ("running", "halted")
