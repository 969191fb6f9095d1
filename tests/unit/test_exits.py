"""The layers of the dispatch table: each stands in front of the ones before, whoever changes in which order."""

import pytest

from vmm.vtx import reasons
from vmm.vtx.exits import Exits

REASON = reasons.IO_INSTRUCTION
OTHER = reasons.CPUID
STEP = reasons.EPT_VIOLATION


class Front:
    """Puts its name and the name of the handler below into the one in front; names `named` keys."""

    def __init__(self, *named, unnamed=False):
        self._named = named
        self._unnamed = unnamed
        self._made = {}

    def keys(self):
        return self._named

    def _before(self, kind, below):
        return self._made.setdefault((kind, below), f"{kind}>{below}")

    def named(self, key, below):
        return self._before("named", below)

    def others(self, below):
        return self._before("others", below) if self._unnamed else below

    def every(self, below):
        return self._before("every", below)


class Vcpu(bytearray):
    """What the shim knows of one: its number, its frame and its table."""

    def __init__(self, number):
        super().__init__(0x1000)
        self.number = number
        self.table = None

    def use(self, table):
        self.table = table


def attach(exits, number=0):
    vcpu = Vcpu(number)
    vcpu.table = exits.new_table()
    exits.attach(vcpu, vcpu.table)
    return vcpu


@pytest.fixture
def exits():
    made = Exits(lambda vcpu, text: None)
    made.vcpu = attach(made)
    made.add(REASON, "slow")
    made.add(OTHER, "cpuid")
    made.add(reasons.PENDING, "pending")
    made.add_slot(reasons.COMPLETED, "completed")
    made.add_slot(reasons.WRITTEN, "written")
    made.keyed(REASON, 0, 0xFFFFFFFF, 3)
    made.key(REASON, 1, "one", 11)
    made.key(REASON, 2, "two", 22)
    return made


def found(exits, key, reason=REASON):
    """(handler, datum) as the shim finds them."""
    slot, datum = exits._keys[reason].find(key) or (reason, 0)
    return exits.vcpu.table[slot], datum


def state(exits):
    return [found(exits, key) for key in range(6)], list(exits.vcpu.table)


def test_a_front_stands_before_the_very_handler_of_each_key(exits):
    exits.front(REASON, Front(1, 3))
    assert [found(exits, key) for key in (1, 2, 3, 4)] == [
        ("named>one", 11),
        ("two", 22),
        ("named>slow", 0),
        ("slow", 0),
    ]
    assert exits.vcpu.table[OTHER] == "cpuid"
    assert exits.handler(REASON, exits.vcpu) == "every>slow"


def test_a_front_without_keys_stands_before_all(exits):
    exits.front(REASON, Front(1, unnamed=True))
    assert [found(exits, key)[0] for key in (1, 2, 4)] == ["named>one", "others>two", "others>slow"]


def test_it_goes_and_all_is_as_before(exits):
    before = state(exits)
    exits.front(REASON, Front(1, 2, 3, unnamed=True))
    exits.front(REASON, Front(2, 5))
    exits.front(REASON)
    assert state(exits) == before
    assert exits.handler(REASON, exits.vcpu) == "slow"


def test_handlers_of_keys_that_come_and_go_behind_a_front(exits):
    exits.front(REASON, Front(1, 3, unnamed=True))
    exits.unkey(REASON, 1)
    exits.key(REASON, 3, "three", 33)
    exits.key(REASON, 4, "four", 44)
    assert [found(exits, key) for key in (1, 3, 4)] == [("named>slow", 0), ("named>three", 33), ("others>four", 44)]
    with pytest.raises(ValueError, match="key 0x3 of exit reason 30 has a handler already"):
        exits.key(REASON, 3, "again")
    exits.front(REASON)
    assert [found(exits, key) for key in (1, 3, 4)] == [("slow", 0), ("three", 33), ("four", 44)]


def test_a_reason_that_is_replaced_has_no_keys(exits):
    exits.front(REASON, Front(1, 3))
    exits.replace(REASON, "test", lambda vcpu, below: "held")
    assert exits.vcpu.table[REASON] == "every>held"
    assert not exits._fronted[REASON]
    exits.front(REASON)
    assert exits.vcpu.table[REASON] == "held"
    exits.replace(REASON, "test")
    assert [found(exits, key) for key in (1, 4)] == [("one", 11), ("slow", 0)]


def above(name):
    return lambda vcpu, below: f"{name}{vcpu.number}>{below}"


def test_several_that_replace_a_reason_stand_above_each_other_and_go_in_any_order():
    exits = Exits(lambda vcpu, text: None)
    vcpus = [attach(exits, number) for number in range(2)]
    exits.add(OTHER, "cpuid")
    exits.replace(OTHER, "backoff", above("held"))
    exits.replace(OTHER, "policies", above("watch"))
    assert [vcpu.table[OTHER] for vcpu in vcpus] == ["watch0>held0>cpuid", "watch1>held1>cpuid"]
    exits.replace(OTHER, "nobody")
    with pytest.raises(ValueError, match="exit reason 10 is replaced by backoff already"):
        exits.replace(OTHER, "backoff", above("again"))
    exits.front(OTHER, Front(unnamed=True))
    assert vcpus[1].table[OTHER] == exits.handler(OTHER, vcpus[1]) == "every>watch1>held1>cpuid"
    exits.front(OTHER)
    exits.replace(OTHER, "backoff")
    assert [vcpu.table[OTHER] for vcpu in vcpus] == ["watch0>cpuid", "watch1>cpuid"]
    exits.replace(OTHER, "backoff", above("held"))
    exits.replace(OTHER, "backoff")
    assert vcpus[0].table[OTHER] == "watch0>cpuid"
    exits.replace(OTHER, "policies")
    assert [vcpu.table[OTHER] for vcpu in vcpus] == ["cpuid", "cpuid"]


def test_the_diversion_takes_every_slot_but_those_that_it_leaves(exits):
    exits.front(REASON, Front(1, 3))
    exits.add(STEP, "violation")
    exits.front(STEP, Front(unnamed=True))
    before = state(exits)
    exits.divert(exits.vcpu, "step", {STEP: None, reasons.PENDING: "hold"})
    assert exits.vcpu.table[STEP] == "every>violation"
    assert exits.vcpu.table[reasons.PENDING] == "hold"
    assert exits.vcpu.table[reasons.COMPLETED] == "completed"
    assert exits.vcpu.table[reasons.WRITTEN] == "written"
    left = (STEP, reasons.PENDING, reasons.COMPLETED, reasons.WRITTEN)
    assert {handler for slot, handler in enumerate(exits.vcpu.table) if slot not in left} == {"step"}
    exits.restore(exits.vcpu)
    assert state(exits) == before


def test_changes_below_a_diversion_show_when_it_is_over(exits):
    exits.divert(exits.vcpu, "step", {reasons.PENDING: None})
    exits.front(REASON, Front(1))
    exits.replace(reasons.PENDING, "test", lambda vcpu, below: "held")
    assert exits.vcpu.table[reasons.PENDING] == "held"
    assert found(exits, 1) == ("step", 11)
    exits.restore(exits.vcpu)
    assert found(exits, 1) == ("named>one", 11)
    assert exits.vcpu.table[reasons.PENDING] == "held"


def test_more_keys_than_the_hash_table_has(exits):
    """It grows; what was there stays."""
    exits.front(REASON, Front(*range(40)))
    assert [found(exits, key) for key in (1, 2, 39)] == [("named>one", 11), ("named>two", 22), ("named>slow", 0)]


class Many(Front):
    """Each key a handler of its own."""

    def named(self, key, below):
        return f"{key}>{below}"


def test_more_handlers_than_there_are_slots(exits):
    """All exits of the reason then pass the front, and nothing is lost when it goes."""
    before = state(exits)
    exits.front(REASON, Many(*range(300)))
    assert [found(exits, key) for key in (1, 2, 39)] == [("every>one", 11), ("every>two", 22), ("every>slow", 0)]
    exits.front(REASON, Many(*range(100)))
    assert found(exits, 39) == ("39>slow", 0)
    exits.front(REASON)
    assert state(exits)[0] == before[0]
    assert state(exits)[1] == before[1]


def test_what_is_named_twice_is_refused(exits):
    with pytest.raises(ValueError, match="exit reason 10 has a handler already"):
        exits.add(OTHER, "again")


def test_several_vcpus_share_handlers_and_have_some_of_their_own():
    exits = Exits(lambda vcpu, text: None)
    first, second = vcpus = [attach(exits, number) for number in range(2)]
    exits.add(OTHER, "cpuid")
    exits.add(REASON, exits.each(lambda vcpu: f"slow{vcpu.number}"))
    exits.keyed(REASON, 0, 0xFFFFFFFF, 3)
    exits.key(REASON, 1, exits.each(lambda vcpu: f"one{vcpu.number}"), 11)
    exits.arm()
    slot, _ = exits._keys[REASON].find(1)
    assert [vcpu.table[OTHER] for vcpu in vcpus] == ["cpuid", "cpuid"]
    assert [(vcpu.table[REASON], vcpu.table[slot]) for vcpu in vcpus] == [("slow0", "one0"), ("slow1", "one1")]
    exits.front(REASON, Front(1, 3))
    slots = [exits._keys[REASON].find(key)[0] for key in (1, 3)]
    fronted = [tuple([vcpu.table[at] for at in slots]) for vcpu in vcpus]
    assert fronted == [("named>one0", "named>slow0"), ("named>one1", "named>slow1")]
    assert [exits.handler(REASON, vcpu) for vcpu in vcpus] == ["every>slow0", "every>slow1"]
    exits.divert(second, "step", {OTHER: None})
    assert (first.table[REASON], second.table[REASON], second.table[OTHER]) == ("slow0", "step", "cpuid")
    exits.replace(OTHER, "test", lambda vcpu, below: "held")
    assert [vcpu.table[OTHER] for vcpu in vcpus] == ["held", "held"]
    exits.restore(second)
    exits.front(REASON)
    assert [(vcpu.table[REASON], vcpu.table[slot]) for vcpu in vcpus] == [("slow0", "one0"), ("slow1", "one1")]


def test_a_head_stands_before_the_front_and_goes(exits):
    exits.front(OTHER, Front(unnamed=True))
    before = exits.vcpu.table[OTHER]

    def head(below):
        return f"head>{below}"

    exits.head(OTHER, head)
    assert exits.vcpu.table[OTHER] == f"head>{before}" == exits.handler(OTHER, exits.vcpu)
    exits.front(OTHER, None)
    assert exits.vcpu.table[OTHER] == "head>cpuid"
    exits.head(OTHER, head, False)
    assert exits.vcpu.table[OTHER] == "cpuid"


class Counting(Front):
    """Counts what it is asked for."""

    asked = 0

    def __init__(self, *named):
        super().__init__(*named)
        self._named = list(named)

    def add(self, exits, key):
        self._named.append(key)
        self.asked = 0
        exits.front(REASON, self, (key,))

    def named(self, key, below):
        self.asked += 1
        return f"named {key}>{below}"


def test_a_further_key_of_a_front_leaves_the_others_alone(exits):
    front = Counting(1)
    exits.front(REASON, front, (1,))
    for key in range(2, 60):
        front.add(exits, key)
        assert front.asked == 1
    assert found(exits, 1) == ("named 1>one", 11)
    assert found(exits, 2) == ("named 2>two", 22)
    assert found(exits, 59) == ("named 59>slow", 0)
    assert found(exits, 60) == ("slow", 0)


def test_a_front_that_loses_keys_one_by_one_leaves_nothing(exits):
    before, free = state(exits), exits._unused - len(exits._free)
    front = Counting(1, 2)
    exits.front(REASON, front)
    front.add(exits, 3)
    for key in (1, 3):
        front._named.remove(key)
        exits.front(REASON, front, (key,))
    assert found(exits, 1) == ("one", 11)
    assert found(exits, 2) == ("named 2>two", 22)
    assert found(exits, 3) == ("slow", 0)
    exits.front(REASON, None, (2,))
    assert state(exits) == before
    assert exits._unused + len(exits._free) >= free


def test_a_front_that_grows_beyond_the_slots_stands_before_all(exits):
    front = Counting()
    exits.front(REASON, front, ())
    for key in range(300):
        front.add(exits, key)
    assert found(exits, 1) == ("every>one", 11)
    assert found(exits, 299) == ("every>slow", 0)
    for key in range(200):
        front._named.remove(key)
        exits.front(REASON, front, (key,))
    assert found(exits, 299) == ("named 299>slow", 0)
    assert found(exits, 1) == ("one", 11)
