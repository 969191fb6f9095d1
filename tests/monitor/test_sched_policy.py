"""sched.policy: a rule of the user's picks who runs, and one that fails is gone. sched.top() says who ran."""

import re

import pytest
from bench import DATA

COUNT = f"""
again:
    inc qword ptr [{DATA:#x}]
    jmp again
"""
SLEEP = "cli\nhlt"

RULES = """
class Only:
    def __init__(self, name):
        self.name = name
        self.seen = []
    def pick(self, runnable):
        self.seen.append([vm.name for vm in runnable])
        del self.seen[:-20]
        for vm in runnable:
            if vm.name == self.name:
                return vm
class Nobody:
    def pick(self, runnable):
        return None
class Raises:
    def pick(self, runnable):
        raise OSError("no idea")
class Wrong:
    def __init__(self, what):
        self.what = what
    def pick(self, runnable):
        return self.what
class Thinks:
    def pick(self, runnable):
        while True:
            pass
"""


@pytest.fixture(scope="module")
def rules(bench):
    bench.exec(RULES)
    return bench


@pytest.fixture
def pair(rules, guest):
    """Two guests that count for ever, and the usual rule behind the test."""
    made = guest(COUNT), guest(COUNT)
    for one in made:
        one.go()
    yield made
    rules.exec("sched.policy = None")


def progress(rules, pair, rule=None, ms=100):
    """What each counted in that time, and what was printed. rule: comes into force at its start."""
    before = [one.word() for one in pair]
    printed = rules.exec((f"sched.policy = {rule}\n" if rule else "") + f"time.sleep_ms({ms})")
    return [one.word() - count for one, count in zip(pair, before, strict=True)], printed


def test_the_picked_one_runs_and_the_other_does_not(rules, pair):
    for number in (0, 1):
        rules.exec(f"sched.policy = rule = Only({pair[number].name!r})")
        counted, printed = progress(rules, pair)
        assert counted[number] > 0
        assert counted[1 - number] == 0
        assert not printed
    assert rules.eval("rule.seen")[-1] == [one.name for one in pair]


def test_who_cannot_run_is_not_offered(rules, pair, guest):
    halted = guest(SLEEP)
    halted.halted()
    pair[1].exec("vm.pause()")
    rules.exec(f"sched.policy = rule = Only({pair[0].name!r})")
    assert progress(rules, pair)[0][0] > 0
    assert rules.eval("rule.seen")[-1] == [pair[0].name]


def test_nobody_runs_where_none_is_picked(rules, pair):
    rules.exec("sched.policy = Nobody()")
    assert progress(rules, pair) == ([0, 0], "")
    rules.exec("sched.policy = None")
    assert min(progress(rules, pair)[0]) > 0


@pytest.mark.parametrize(
    "rule, said",
    [
        ("Raises()", "OSError: no idea"),
        ("Wrong(7)", "ValueError: pick() returned 7, which cannot run"),
        ("Wrong(sched)", "which cannot run"),
        ("Thinks()", "Timeout"),
        ("object()", "AttributeError"),
    ],
)
def test_a_rule_that_fails_is_removed_and_guests_go_on(rules, pair, rule, said):
    _, printed = progress(rules, pair, rule)
    counted, again = progress(rules, pair)
    assert "sched.policy failed and is removed:" in printed
    assert said in printed
    assert not again
    assert min(counted) > 0
    assert rules.eval("sched.policy is None")


def test_a_guest_that_cannot_run_may_not_be_picked(rules, pair):
    pair[1].exec("vm.pause()")
    counted, printed = progress(rules, pair, f"Wrong({pair[1].ref})")
    assert "which cannot run" in printed
    assert counted[0] > 0 and counted[1] == 0
    assert pair[1].state == "paused"


def test_top_says_who_ran(rules, pair, guest):
    halted = guest(SLEEP)
    halted.halted()
    rules.exec(f"sched.policy = Only({pair[0].name!r})")
    rules.exec("sched.top()")  # from here on
    rules.run(100)
    lines = rules.exec("sched.top()").splitlines()
    assert lines[0].split() == ["NAME", "STATE", "PRIO", "GUEST%", "HOST%", "WAKE-UPS", "LATE(MEAN)", "LATE(MAX)"]
    rows = {name: line for name, *line in (re.split(r" +", line.strip()) for line in lines[1:])}
    assert {name: row[0] for name, row in rows.items()} == {
        pair[0].name: "running", pair[1].name: "running", halted.name: "halted",
    }  # fmt: skip
    assert float(rows[pair[0].name][2]) > 50
    assert float(rows[pair[1].name][2]) == float(rows[halted.name][2]) == 0
