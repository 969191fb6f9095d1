"""Who can end everything: Ctrl-D, sys.exit(), machine.soft_reset(), at the prompt and by a program."""

import pytest
from pcanel.repl import RemoteError

ASKED = """
import cpu
KEPT = 5
answer = False
def hook():
  print("asked")
  return answer
cpu.soft_reset_hook(hook)
"""


def kept(machine):
    return machine.exec("print('KEPT' in globals())").strip() == "True"


def test_the_hook_decides_at_the_prompt(fresh):
    machine = fresh()
    console = machine.console("repl")
    for typed in ("\x04", "import sys; sys.exit()\r", "raise SystemExit(1)\r"):
        machine.exec(ASKED)
        console.expect(">>> $", 10)
        console.send(typed)
        console.expect("^asked$", 10)
        console.expect(r"^>>> ", 10)
        assert kept(machine)
        machine.exec("answer = True")
        console.expect(">>> $", 10)
        console.send(typed)
        console.expect("^asked$", 10)
        console.expect("soft reboot", 10)
        console.expect(r"^>>> ", 30)
        assert not kept(machine)


def test_a_hook_that_fails_keeps_nobody(fresh):
    machine = fresh()
    console = machine.console("repl")
    machine.exec(ASKED.replace("return answer", "1 / 0"))
    console.expect(">>> $", 10)
    console.send("\x04")
    console.expect("ZeroDivisionError", 10)
    console.expect("soft reboot", 10)


def test_machine_soft_reset_asks_nobody(fresh):
    machine = fresh()
    console = machine.console("repl")
    machine.exec(ASKED)
    console.expect(">>> $", 10)
    console.send("import machine; machine.soft_reset()\r")
    assert "asked\n" not in console.expect(r"(?s)machine.soft_reset\(\)\n(.*)soft reboot", 10)[1].decode()
    console.expect(r"^>>> ", 30)
    assert not kept(machine)


def test_a_soft_reset_that_was_caught_is_over(fresh):
    machine = fresh()
    machine.exec(ASKED + "import machine, sys\ntry: machine.soft_reset()\nexcept SystemExit: pass")
    machine.exec("import sys; sys.exit()")
    assert kept(machine)


def test_a_script_that_exits_resets_where_it_is_asked_for(fresh):
    machine = fresh()
    machine.exec("KEPT = 5\nimport sys\nsys.exit()")
    assert kept(machine)
    with pytest.raises(RemoteError):  # the reset ends the script's output
        machine.exec("import cpu\ncpu.exit_resets(True)\nimport sys\nsys.exit()")
    machine.console("repl").expect("soft reboot", 10)
    assert not kept(machine)


def test_system_exit_of_the_idle_hook_ends_nothing(fresh):
    machine = fresh()
    console = machine.console("repl")
    machine.exec("import cpu\nKEPT = 5\ndef hook(d):\n  cpu.idle_hook(None)\n  raise SystemExit\ncpu.idle_hook(hook)")
    console.expect("SystemExit", 10)
    console.expect(r"^>>> ", 10)
    assert kept(machine)
