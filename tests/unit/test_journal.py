"""News of guests: limited a second, held back while a program talks to the prompt."""

import pytest

from vmm.journal import Journal


class Rig:
    def __init__(self, capsys):
        self.now = 1000
        self.reading = False
        self.journal = Journal(lambda: self.now, 100, lambda: self.reading)
        self._capsys = capsys

    def printed(self):
        return self._capsys.readouterr().out.splitlines()


@pytest.fixture
def rig(capsys):
    return Rig(capsys)


def test_a_line(rig):
    rig.journal.say("a", "hello")
    assert rig.printed() == ["[a] hello"]


def test_a_flood_is_counted(rig):
    for _ in range(1000):
        rig.journal.say("a", "reset")
    rig.journal.say("b", "still heard")
    assert rig.printed() == ["[a] reset"] * 8 + ["[b] still heard"]
    rig.journal.flush()
    assert rig.printed() == []
    rig.now += 100
    rig.journal.flush()
    assert rig.printed() == ["[a] ... and 992 more like that"]
    rig.journal.say("a", "again")
    assert rig.printed() == ["[a] again"]


def test_held_back_while_a_program_reads(rig):
    rig.reading = True
    rig.journal.say("a", "one")
    rig.journal.say("a", "two")
    rig.journal.flush()
    assert rig.printed() == []
    rig.reading = False
    rig.journal.flush()
    assert rig.printed() == ["[a] one", "[a] two"]


def test_what_is_held_is_bounded(rig):
    rig.reading = True
    for i in range(100):
        rig.journal.say("guest%d" % i, "x")
    rig.reading = False
    rig.journal.flush()
    assert rig.printed() == ["[guest%d] x" % i for i in range(68, 100)]
