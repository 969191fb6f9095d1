"""sched.policy: a rule of the user's picks who runs, and one that fails is gone. sched.top() says who ran."""

import re

import metronome
import pytest
from bench import DATA
from pcanel.paths import ROOT

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


SPOILS = """
class Spoils:
    def __init__(self, name, act):
        self.name = name
        self.act = act
    def pick(self, runnable):
        for vm in runnable:
            if vm.name == self.name:
                getattr(vm, self.act)()
                return vm
"""


@pytest.mark.parametrize("act", ["destroy", "pause", "power_off"])
def test_a_rule_that_takes_away_whom_it_picks_is_removed(rules, pair, guest, act):
    victim = guest(COUNT)
    victim.go()
    rules.exec(SPOILS)
    _, printed = progress(rules, pair, f"Spoils({victim.name!r}, {act!r})", 30)
    assert "sched.policy failed and is removed:" in printed
    assert "which cannot run" in printed
    counted, again = progress(rules, pair)
    assert not again and min(counted) > 0
    assert rules.eval("sched.policy is None")
    assert (victim.name in rules.eval("list(vms)")) == (act != "destroy")


@pytest.fixture(scope="module")
def documented(rules):
    """The class of docs/scheduling.md, by its own text."""
    text = (ROOT / "docs/scheduling.md").read_text()
    code = next(code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "class Alternate" in code)
    rules.exec(code.partition("\nsched.policy")[0])
    return re.search(r"^sched\.policy = (.*)$", code, re.M)[1]


def test_the_documented_rule_lets_equals_run_equally(rules, pair, documented):
    progress(rules, pair, documented, 50)
    counted, printed = progress(rules, pair, documented, 300)
    assert not printed
    assert counted[0] == pytest.approx(counted[1], rel=0.15)
    assert rules.eval("type(sched.policy).__name__") == "Alternate"


def test_wake_ups_count_under_a_rule(rules, pair, guest, documented):
    """One with a timer each 25 ms beside a busy guest, and one that an NMI wakes up.

    The period is longer than a turn of the other: the guest waits again before its next interrupt is due.
    """
    pair[1].exec("vm.pause()")
    ticking = metronome.start(guest, period=2_500_000, priority=0)
    woken = guest("again: hlt; jmp again", handlers={2: "iretq"})
    woken.halted()
    count = f"{ticking.ref}.memory.read_u64({DATA + 8 * metronome.COUNT:#x})"
    rows = rules.exec(
        f"sched.policy = {documented}\ntime.sleep_ms(50)\nfor vm in vms.values(): vm.used()\nbefore = {count}\n"
        f"for _ in range(5):\n    time.sleep_ms(60)\n    {woken.ref}.nmi()\ntime.sleep_ms(20)\nsched.top()\n"
        f"print({count} - before)"
    ).splitlines()
    ticks = int(rows.pop())
    assert ticks >= 12
    rows = {line.split()[0]: [float(part) for part in line.split()[5:]] for line in rows[1:]}
    wakes, mean, most = rows[ticking.name]
    assert wakes == pytest.approx(ticks, abs=1)  # one may come between the two readings
    assert 0 < mean < 1_000_000  # by this rule it may find itself behind the other, for a turn of 10 ms
    assert mean <= most < 2_000_000
    assert rows[woken.name] == [5, 0, 0]
    assert rows[pair[0].name] == [0, 0, 0]
