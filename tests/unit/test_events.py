"""The events of policies: what their filters take, and which exits pass them."""

import struct

import pytest

from vmm.debug import breakpoints  # noqa: F401  it has a class of its own
from vmm.policies import events, link
from vmm.policies.event import Event
from vmm.policies.events import CPUID, EVENTS, EXCEPTION, IO, MEMORY, MOV_DR, RDMSR
from vmm.vtx import frame


def passes(event, chosen, narrower=False, **words):
    """Whether an exit with these words of the frame passes the filters."""
    data = bytearray(0x1000)
    for name, value in words.items():
        struct.pack_into("<Q", data, 4 * getattr(frame, name), value)
    tests = event.narrower(chosen) if narrower else event.tests(chosen)
    return link.passes(link.compiled(tests), data)


def _classes():
    """Every class of events."""
    left = [Event]
    for cls in left:
        left += cls.__subclasses__()
    return left


@pytest.mark.parametrize("cls", _classes(), ids=lambda cls: cls.__qualname__)
def test_what_is_done_quickly_is_what_is_done(cls):
    """The fast way to answer is no older than the slow one: a class that has a value() or skip() of its own does not
    inherit what stands in for another's."""
    for slow, fast in (("value", ("quick", "quickly")), ("skip", ("quick_skip", "quickly"))):
        own = next((base for base in cls.__mro__ if slow in vars(base)), Event)
        stands_in = next(base for base in cls.__mro__ if any(name in vars(base) for name in fast))
        assert stands_in is Event or issubclass(stands_in, own), (slow, own, stands_in)


@pytest.mark.parametrize("event", EVENTS.values(), ids=str)
def test_each_says_what_it_is(event):
    """One line, with the section of the SDM or of virtio; a line a filter, and one for those of every event; nothing is
    required of whom it does not say so."""
    lines = repr(event).split("\n")
    assert lines[0].startswith(f"{event.name}: ")
    assert "SDM Vol." in lines[0] or "virtio 1.2" in lines[0]
    assert len(lines) == 2 + len(event.filters)
    assert lines[-1] == "    as every event: cpl=, pid=, comm=, when=, once=, every=, limit="
    assert events.find(event.name) is event
    assert events.find(event) is event
    assert event.reasons
    chosen = {f.name: 1 << 16 if f.name == "ticks" else 1 for f in event.filters if f.required}
    if any(f.name == "gpa" and not f.required for f in event.filters):
        chosen["gpa"] = 0x1000  # or at=: one of the two
    event.check(chosen)
    for f in event.filters:
        if f.required:
            with pytest.raises(ValueError, match=f"a policy on {event.name} names its {f.name}="):
                event.check({name: 1 for name in chosen if name != f.name})


def test_an_unknown_event_names_those_that_there_are():
    known = "event 'nothing' is unknown; there are arrival, call, cpuid, cr, descriptor_table, exception, execute, "
    with pytest.raises(ValueError, match=known):
        events.find("nothing")


def port(number, write, size, string=0):
    return number << 16 | (0 if write else 8) | string << 4 | size - 1


@pytest.mark.parametrize(
    ("chosen", "matching"),
    [
        ({}, 12),
        ({"port": 0x21}, 6),
        ({"write": True}, 6),
        ({"port": 0x21, "write": False}, 3),
        ({"port": 0x21, "write": True, "size": 4}, 1),
        ({"size": 2}, 4),
    ],
)
def test_keys_and_tests_of_a_port_say_the_same(chosen, matching):
    exits = [port(number, write, size) for number in (0x21, 0x22) for write in (False, True) for size in (1, 2, 4)]
    found = [q for q in exits if passes(IO, chosen, QUALIFICATION=q)]
    assert len(found) == matching
    keys = IO.keys(chosen)
    assert keys is None or found == [q for q in exits if q in keys]
    assert keys is None or port(0x21, chosen.get("write", True), chosen.get("size", 1), 1) in keys


def test_subleaf_is_left_where_the_leaf_is_known():
    chosen = {"leaf": 4, "subleaf": 2}
    assert passes(CPUID, chosen, RAX=0xFFFFFFFF00000004, RCX=2)
    assert not passes(CPUID, chosen, RAX=5, RCX=2)
    assert passes(CPUID, chosen, True, RAX=5, RCX=2)
    assert not passes(CPUID, chosen, True, RAX=4, RCX=3)
    assert CPUID.narrower({"leaf": 4}) == []


@pytest.mark.parametrize(
    ("gpa", "rights", "seen"),
    [
        (0x1_0000_0FF8, 1, True),
        (0x1_0000_0FF7, 1, False),
        (0x1_0000_1007, 2, True),
        (0x1_0000_1008, 2, False),
        (0x1_0000_1000, 4, False),
        (0x0FF8, 1, False),  # the same but for what the key leaves out
    ],
)
def test_memory_counts_to_the_byte(gpa, rights, seen):
    chosen = {"gpa": 0x1_0000_0FF8, "length": 16, "access": "rw"}
    assert passes(MEMORY, chosen, True, GPA=gpa, QUALIFICATION=rights | 0x180) is seen
    assert MEMORY.keys(chosen) == [0, 0x1000]


def test_a_large_range_has_no_keys():
    assert MEMORY.keys({"gpa": 0, "length": 1 << 20}) is None
    with pytest.raises(ValueError, match="a policy watches at most 16384"):
        MEMORY.check({"gpa": 0, "length": 1 << 40})


def test_nmis_and_machine_checks_are_no_exceptions_of_the_guest():
    nmi, mc, page_fault = 2 << 8 | 2, 3 << 8 | 18, 3 << 8 | 14
    assert [passes(EXCEPTION, {}, INTR_INFO=info | 1 << 31) for info in (nmi, mc, page_fault)] == [False, False, True]
    assert passes(EXCEPTION, {"vector": 14}, INTR_INFO=page_fault)
    assert not passes(EXCEPTION, {"vector": 6}, INTR_INFO=page_fault)


def test_mov_dr():
    assert passes(MOV_DR, {"number": 7, "write": False}, QUALIFICATION=7 | 1 << 4)
    assert not passes(MOV_DR, {"write": True}, QUALIFICATION=7 | 1 << 4)


def test_an_msr_is_armed_in_its_direction():
    assert RDMSR.needs({"msr": 0x10}).msrs == ((0x10, False),)
