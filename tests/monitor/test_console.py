"""A guest's console at the prompt's terminal, as a person uses it: vm.console(), Ctrl-] to come back."""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from bench import DATA
from person import Person

PCANEL = Path(sys.executable).with_name("pcanel")
DETACH = "\x1d"
LIMIT = 60  # seconds

# Sends back what COM1 receives, counts it, and greets.
ECHO = f"""
    mov dx, 0x3f8
    mov al, 0x21
    out dx, al
again:
    mov dx, 0x3fd
    in al, dx
    test al, 1
    jz again
    mov dx, 0x3f8
    in al, dx
    out dx, al
    inc qword ptr [{DATA:#x}]
    jmp again
"""


@pytest.fixture
def line(bench, guest):
    """COM1, and an echoing guest without a host console."""
    made = guest(ECHO)
    made.go()
    repl = bench.monitor.console("repl")
    bench.exec(f"vm = {made.ref}")
    repl.guest = made
    repl.send("\r")
    repl.expect(rb">>> $", LIMIT)
    yield repl
    repl.send(DETACH)


def attach(line, call="vm.console()"):
    line.send(call + "\r")
    line.expect(rf"\[console of {line.guest.name}; (.+) detaches\]\n", LIMIT)


def test_attach_type_detach(line, bench):
    attach(line)
    line.send("hello, guest")
    line.expect("hello, guest", LIMIT)
    line.send(DETACH)
    line.expect(rb"\n\[detached\]\n>>> ", LIMIT)
    line.send("6 * 7\r")
    line.expect(rb"\n42\n>>> ", LIMIT)
    assert line.guest.word() == 12
    assert bench.alive()


def test_ctrl_c_and_every_other_character_go_to_the_guest(line):
    attach(line, "vm.attach()")
    keys = bytes(c for c in range(256) if c != ord(DETACH))
    for i in range(0, 256, 64):
        line.send(keys[i : i + 64])
        time.sleep(0.2)
    line.guest.bench.monitor.console("repl").expect(rb"\xfd\xfe\xff", LIMIT)
    line.send(DETACH)
    shown = line.expect(rb"\n\[detached\]\n>>> ", LIMIT)
    assert shown
    assert line.guest.word() == 255
    assert b"\x01\x02\x03\x04\x05" in line.log.read_bytes()
    assert line.guest.eval("vm.console.written") == 256  # and the greeting


def test_ctrl_c_works_at_the_prompt_afterwards(line):
    attach(line)
    line.send("\x03")
    line.expect(rb"\x03", LIMIT)
    line.send(DETACH + "while True: pass\r\r")
    line.expect(rb"\[detached\]\n>>> while True: pass", LIMIT)
    time.sleep(1)
    line.send("\x03")
    line.expect(rb"KeyboardInterrupt: ?\n>>> ", LIMIT)


def test_another_key(line):
    attach(line, r"vm.console(key='\x14')")
    line.send(DETACH + "x")
    line.expect(rb"\x1dx", LIMIT)
    line.send("\x14")
    line.expect(rb"\[detached\]\n>>> ", LIMIT)
    line.send("vm.console('too long')\r")
    line.expect(rb"ValueError: key='too long': one character\n>>> ", LIMIT)


def test_other_guests_run_meanwhile(line, guest):
    other = guest(f"again:\ninc qword ptr [{DATA:#x}]\njmp again")
    other.go()
    before = other.word()
    line.send("\r")
    line.expect(rb">>> $", LIMIT)
    line.guest.exec("")
    attach(line)
    line.send("x")
    line.expect("x", LIMIT)
    time.sleep(1)
    line.send(DETACH)
    line.expect(rb"\[detached\]\n>>> ", LIMIT)
    assert other.word() > before


def test_a_guest_that_is_off(line):
    attach(line)
    line.send("x")
    line.expect("x", LIMIT)
    line.send(DETACH + "vm.power_off()\r")
    line.expect(rb"\[detached\]\n>>> vm.power_off\(\)\n>>> ", LIMIT)
    attach(line)
    line.send("nobody reads this\r" * 300)
    time.sleep(0.5)
    line.send(DETACH)
    line.expect(rb"\[detached\]\n>>> ", LIMIT)


def test_exec_takes_the_prompt_back(line, bench):
    attach(line)
    assert bench.eval("6 * 7") == 42
    line.expect(rb"\[detached\]\n", LIMIT)


def test_a_policy_cannot_attach(line, guest):
    made = guest("mov eax, 1\ncpuid\nhlt")
    made.policy("CPUID", "vm.attach()")
    assert "a policy cannot attach to a console" in made.until("vm.state == 'paused'")


def test_pcanel_repl(line, bench):
    """In pcanel's own terminal Ctrl-] is the menu's key, so it is typed twice."""
    words = [PCANEL, "repl", "--run", bench.monitor.run.id]
    person = Person(partial(subprocess.Popen, words))
    try:
        person.sees("Ctrl-] q leaves it")
        time.sleep(0.5)  # the terminal turns raw
        person.types("vm.console()\r")
        person.sees("Ctrl-] detaches]")
        person.types("over the terminal")
        person.sees("over the terminal")
        person.types("\x1d\x1d")
        person.sees("[detached]")
        person.types("6 * 7\r")
        person.sees("42")
        person.sees(">>> ")  # it waits, and so is told that the terminal has left
    finally:
        person.types("\x1dq")
        person.process.wait(20)
        person.close()
