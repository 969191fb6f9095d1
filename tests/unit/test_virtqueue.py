"""Split virtqueues against the specification, and against drivers that write nonsense."""

from random import Random

import pytest
import rings
from hypothesis import given
from hypothesis import strategies as st
from rings import AVAIL, DATA, DESC, INDIRECT, NEXT, SIZE, USED, Driver

from vmm.devices.virtio import queue
from vmm.devices.virtio.queue import CHAIN, HEAD, IN, MOST, NOTHING, OUT, WRONG, Queue


class Bench:
    def __init__(self, event=False, indirect=True, most=8):
        self.memory = rings.memory()
        self.queue = Queue(self.memory, most)
        self.driver = Driver(self.memory, self.queue, most)
        self.taken = queue.new_chain()
        assert self.queue.enable(event, indirect)

    def pop(self):
        return self.queue.pop(self.taken)

    def sizes(self):
        readable, writable = queue.buffers(self.taken)
        return [size for _, size in readable], [size for _, size in writable]


def test_nothing_is_there():
    b = Bench()
    assert b.pop() == NOTHING and not b.queue.interrupts()


def test_chains_come_in_the_order_of_the_available_ring():
    b = Bench()
    b.driver.chain(2, (DATA, 16, 0), (DATA + 16, 512, 1), (DATA + 600, 1, 1))
    b.driver.chain(6, (DATA, 5, 0))
    b.driver.add(6)
    b.driver.add(2)
    assert b.pop() == CHAIN and b.taken[HEAD] == 6 and b.sizes() == ([5], [])
    assert b.pop() == CHAIN and b.taken[HEAD] == 2 and b.sizes() == ([16], [512, 1])
    assert b.taken[OUT] == 1 and b.taken[IN] == 2
    assert b.pop() == NOTHING


def test_the_indices_wrap():
    b = Bench()
    b.driver.chain(0, (DATA, 4, 1))
    for n in range(0x10010):
        b.driver.add(0)
        assert b.pop() == CHAIN
        b.queue.push(b.taken[HEAD], n & 0xFF)
    assert b.driver.used_index() == 0x10
    assert b.memory.read_u32(USED + 4 + 8 * (0x0F % 8) + 4) == 0x0F


def test_indirect_tables():
    b = Bench()
    b.driver.chain(0, (DATA, 16, 0), (DATA + 0x100, 1024, 1), table=0x8000)
    b.driver.describe(3, 0x8000, 32, INDIRECT)
    b.driver.add(3)
    assert b.pop() == CHAIN and b.taken[HEAD] == 3 and b.sizes() == ([16], [1024])


@pytest.mark.parametrize(
    "case, why",
    [
        ("loop", "chain too long"), ("self", "chain too long"), ("next", "descriptor out of range"),
        ("head", "descriptor out of range"), ("order", "readable buffer behind a writable one"),
        ("outside", "address outside RAM"), ("end", "address outside RAM"), ("high", "address outside RAM"),
        ("empty", "empty buffer"), ("ahead", "available index too far ahead"), ("nested", "wrong indirect table"),
        ("odd", "wrong indirect table"), ("refused", "wrong indirect table"), ("far", "wrong indirect table"),
    ],
)  # fmt: skip
def test_broken_rings_stop_the_queue(case, why):
    b = Bench(indirect=case != "refused")
    d = b.driver
    d.chain(0, (DATA, 16, 0))
    head = 0
    if case == "loop":
        d.describe(0, DATA, 16, NEXT, 1)
        d.describe(1, DATA, 16, NEXT, 0)
    elif case == "self":
        d.describe(0, DATA, 16, NEXT, 0)
    elif case == "next":
        d.describe(0, DATA, 16, NEXT, 8)
    elif case == "head":
        head = 8
    elif case == "order":
        d.chain(0, (DATA, 16, 1), (DATA, 16, 0))
    elif case == "outside":
        d.describe(0, SIZE, 1)
    elif case == "end":
        d.describe(0, SIZE - 1, 2)
    elif case == "high":
        d.describe(0, (1 << 63) - 4, 16)
    elif case == "empty":
        d.describe(0, DATA, 0)
    elif case == "ahead":
        b.memory.write_u16(AVAIL + 2, 9)
    elif case == "nested":
        d.describe(0, 0x8000, 16, INDIRECT)
        d.describe(0, 0x8000, 16, INDIRECT, table=0x8000)
    elif case == "odd":
        d.describe(0, 0x8000, 20, INDIRECT)
    elif case == "refused":
        d.describe(0, 0x8000, 16, INDIRECT)
    elif case == "far":
        d.describe(0, SIZE - 8, 16, INDIRECT)
    if case != "ahead":
        d.add(head)
    assert b.pop() == WRONG and b.queue.broken == why
    assert b.pop() == NOTHING  # until it is reset
    b.queue.reset()
    assert not b.queue.broken and not b.queue.enabled


def test_the_longest_chain():
    b = Bench(most=512)
    d = Driver(b.memory, b.queue, 512)
    b.queue.addresses = [0x20000, 0x30000, 0x38000]
    d.desc, d.avail, d.used = b.queue.addresses
    assert b.queue.enable(0, 0)
    d.chain(0, *[(DATA, 1, 0)] * MOST)
    d.add(0)
    assert b.pop() == CHAIN and b.taken[OUT] == MOST
    d.chain(0, *[(DATA, 1, 0)] * (MOST + 1))
    d.add(0)
    assert b.pop() == WRONG


@pytest.mark.parametrize("where", [(DESC + 1, AVAIL, USED), (DESC, SIZE - 8, USED), (DESC, AVAIL, 1 << 60), (0, 1, 4)])
def test_rings_outside_ram_are_refused(where):
    b = Bench()
    b.queue.reset()
    b.queue.addresses = list(where)
    assert not b.queue.enable(0, 0) and b.pop() == NOTHING


@pytest.mark.parametrize("size", [0, 3, 16, 0x8000, 0xFFFF])
def test_sizes_that_are_none(size):
    b = Bench()
    b.queue.size = size
    assert not b.queue.enable(0, 0)


def test_interrupts_by_flag():
    b = Bench()
    b.driver.chain(0, (DATA, 4, 1))
    for flag in (0, 1):
        b.memory.write_u16(AVAIL, flag)
        b.driver.add(0)
        b.pop()
        b.queue.push(0, 4)
        assert b.queue.interrupts() == 1 - flag
        assert not b.queue.interrupts()


@given(st.randoms())
def test_interrupts_by_event_index(random):
    """An interrupt comes just where the driver's index is passed, whatever the indices are."""
    b = Bench(event=True)
    b.driver.chain(0, (DATA, 4, 1))
    start = random.randrange(0x10000)
    b.queue.state[queue.NEXT] = b.queue.state[queue.FILLED] = b.queue.state[queue.SIGNALLED] = start
    b.driver.added = start
    ends = start
    for _ in range(40):
        count = random.randint(1, 8)
        wanted = ends + random.randint(0, 12)
        b.memory.write_u16(AVAIL + 4 + 16, wanted & 0xFFFF)
        for _ in range(count):
            b.driver.add(0)
        while b.pop() == CHAIN:
            b.queue.push(0, 4)
        assert b.queue.interrupts() == (ends <= wanted < ends + count)
        ends += count
        assert b.memory.read_u16(USED + 4 + 64) == ends & 0xFFFF  # the driver's notifications


@given(st.randoms())
def test_a_saved_queue_goes_on(random):
    b = Bench(event=random.choice((True, False)))
    b.driver.chain(0, (DATA, 4, 1))
    for _ in range(random.randint(0, 20)):
        b.driver.add(0)
        b.pop()
        if random.random() < 0.9:
            b.queue.push(0, 1)
    saved = b.queue.save()
    other = Queue(b.memory, 8)
    other.load(saved)
    assert other.save() == saved and list(other.state) == list(b.queue.state)


@pytest.mark.parametrize("seed", range(60))
def test_random_rings_never_lead_outside(seed):
    random = Random(seed)
    b = Bench(event=random.choice((True, False)), indirect=random.choice((True, False)))
    for _ in range(20):
        rings.nonsense(random, b.memory)
        found = b.pop()
        if found == CHAIN:
            readable, writable = queue.buffers(b.taken)
            assert 0 < len(readable) + len(writable) <= MOST
            start = b.queue._memory.table[4] | b.queue._memory.table[5] << 32
            for hpa, size in readable + writable:
                assert start <= hpa and 0 < size and hpa + size <= start + SIZE
            b.queue.push(b.taken[HEAD], 1)
            b.queue.interrupts()
        elif found == WRONG:
            assert b.queue.broken
            b.queue.reset()
            b.queue.size = 8
            b.queue.addresses = [DESC, AVAIL, USED]
            b.queue.enable(0, 1)
