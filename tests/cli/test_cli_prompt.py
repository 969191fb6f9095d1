"""The prompt in `pcanel run` as a person sees it, on a PTY that is a terminal with colours."""

import pytest


@pytest.fixture(autouse=True)
def colours(pcanel):
    pcanel.environment.update(TERM="xterm", COLUMNS="120", LINES="30")
    pcanel.environment.pop("NO_COLOR", None)


def test_tab_colours_and_a_history_that_lasts(person, pcanel):
    owner = person("run", "--engine", "qemu")
    owner.sees("\x1b[1;32m>>> \x1b[m")
    owner.types("cpu.term\t()\r")
    owner.sees("cpu.terminal()")
    owner.sees("(30, 120, True)")
    owner.types("1 // 0\r")
    owner.sees("\x1b[31mTraceback")
    owner.sees("\x1b[1;31mZeroDivisionError")
    owner.sees("\x1b[?2004h\x1b[1;32m>>> ")
    owner.types("\x1b[200~if 1:\r    a = 'pas'\r\r    print(a + 'ted')\r\x1b[201~")
    owner.sees("\npasted")
    assert pcanel("exec", "print(cpu.terminal()[2])").stdout == "False\n"
    owner.types("'the ' + 'last'\r")
    owner.sees("'the last'")
    owner.types("\x1dq")
    assert owner.process.wait(20) == 0

    owner = person("run", "--engine", "qemu")
    owner.sees(">>> ")
    owner.types("\x1b[A\r")
    owner.sees("\n'the last'")
    owner.types("\x1dq")
    assert owner.process.wait(20) == 0
