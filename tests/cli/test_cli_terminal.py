"""`pcanel run` and `pcanel console` as a person sees them, on a PTY."""

import time


def test_the_prompt_and_the_consoles(person, pcanel):
    owner = person("run", "--engine", "qemu")
    owner.sees("Ctrl-] q ends the run, Ctrl-] ? tells more")
    owner.sees(">>> ")
    owner.types("import machine; com2 = machine.UART(1); 6 * 7\r")
    owner.sees("\n42")
    owner.sees(">>> ")
    owner.types("while True: pass\r\r")
    time.sleep(1)
    owner.types("\x03")
    owner.sees("KeyboardInterrupt")
    owner.sees(">>> ")

    other = person("console", "com2")
    other.sees("Ctrl-] q leaves it")
    time.sleep(0.5)
    owner.types("com2.write('hello guest')\r")
    other.sees("hello guest")
    other.types("typed there")
    time.sleep(0.5)
    owner.types("com2.read()\r")
    owner.sees("b'typed there'")
    other.types("\x1dq")
    assert other.process.wait(20) == 0

    owner.types("\x1d?")
    owner.sees("0 repl, 1 com2, 2 com3, q end the run")
    owner.types("\x1d1")
    owner.sees("[console com2]")
    owner.sees("hello guest")
    owner.types("\x1d0")
    owner.sees("[console repl]")
    owner.types("com2.write('where\\x1b[6n\\x1b[c\\x1b[31mred'); 'writ' + 'ten'\r")
    owner.sees("'written'")
    owner.types("\x1d1")
    assert "\x1b[6n" not in owner.sees("\x1b[31mred") and "\x1b[c" not in owner.shown.decode()
    owner.types("\x1d0")
    owner.sees("[console repl]")
    assert pcanel("exec", "print(com2)").returncode == 0
    owner.types("'still ' + 'here'\r")
    owner.sees("still here")
    owner.types("machine.reset()\r")
    owner.sees("[QEMU: the machine was reset from inside (guest-reset); the monitor boots again]")
    owner.sees(">>> ")
    owner.types("\x1dq")
    assert owner.process.wait(20) == 0
    assert pcanel("status").stdout == "no monitor is running\n"


def test_a_console_whose_run_ends(person, pcanel):
    owner = person("run", "--engine", "qemu", "--headless")
    owner.sees("logs: ")
    other = person("console", "com3")
    other.sees("Ctrl-] q leaves it")
    assert pcanel("stop").returncode == 0
    other.sees("com3 has ended")
    assert other.process.wait(20) == 1
