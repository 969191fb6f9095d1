"""Policies in the dispatch table: each is a link in front of a handler, `below`.

The entries of the table are viper and allocate nothing: ask() calls one policy, each() several, filtered() first tests
words of the frame. Answers other than None, HANDLED and Value, and errors, go to Policy.finish (policy.py). A call
takes about 2,500 ticks; in plain Python it would take 16,000 and more.
"""

from array import array

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind, numbers

from vmm.policies.account import CALL_COUNT, EVERY, FLAGS, LAST, LEFT, PASSES, PLAIN, SKIPPED
from vmm.scheduling.states import RUNS
from vmm.verdict import ADVANCE, HANDLED, YIELD
from vmm.vtx.frame import QUALIFICATION, STARTS, STATE
from vmm.vtx.vmcs_bits import CR_NUMBER, CR_TYPE

_UNANSWERED = const(-1)  # a link's result, among several: ask the next one
_EQUAL = const(0)
_DIFFERS = const(1)
_WITHIN = const(2)
_MOVED = const(3)
_AMONG = const(5)
_EQUAL_LOW = const(4)  # equal() of low halves: most tests are, and it takes half the time
_TEST = const(6)  # words of a test: kind, index in the frame, two numbers of 64 bits


def equal(word, mask, value):
    """A test: the bits of `mask` of a word of the frame are those of `value`."""
    return _EQUAL, word, mask, value


def differs(word, mask, value=0):
    """A test: the bits of `mask` are not those of `value`."""
    return _DIFFERS, word, mask, value


def within(word, first, count):
    """A test: a word of the frame lies in first ... first + count - 1."""
    return _WITHIN, word, first, count


def moved(number, mask, value):
    """A test: a MOV to CR`number` from a register of which the bits of `mask` are those of `value`."""
    return _MOVED, number, mask, value


def among(word, bits, count):
    """A test: the low half of a word is the number of a set bit, below `count`. bits: address of the bitmap."""
    return _AMONG, word, bits, count


def compiled(tests):
    """Return tests as an array for filtered(), or None where there are none."""
    if not tests:
        return None
    words = [1 + _TEST * len(tests)]
    for kind, word, a, b in tests:
        if kind == _EQUAL and not a >> 32:
            kind = _EQUAL_LOW
        words += [kind, word, a & 0xFFFFFFFF, a >> 32, b & 0xFFFFFFFF, b >> 32]
    return array("I", words)


def passes(words, frame):
    """Whether an exit passes compiled() tests. frame: the vCPU frame or what is like it, a buffer."""
    return words is None or filtered(uctypes.addressof(words), _yes, _no, frame) == ADVANCE


def _yes(frame):
    return ADVANCE


def _no(frame):
    return 0


def before(policies, exact, below):
    """Return the handler that asks policies in their order, and calls `below` where none answers.

    exact: the exits have a key that each policy names, or no key that any names; else all their filters are tested.
    """
    return chained(policies, exact, below)[0]


def chained(policies, exact, below):
    """Return (the handler of before(), the links of several policies, a tuple; () for fewer)."""
    if not policies:
        return below, ()
    if len(policies) == 1:
        return _link(policies[0], exact, below, below), ()
    links = tuple([one_of(policy, exact, below) for policy in policies])
    return several(links, below), links


def one_of(policy, exact, below):
    """Return the link of one policy among several."""
    return _link(policy, exact, unanswered, below)


def several(links, below):
    """Return the handler that asks links in their order."""
    return bind(each, links, len(links), below)


def _link(policy, exact, below, handler):
    """below: goes on where this policy does not answer. handler: the handler behind all policies."""
    behind = policy.event.behind(policy, below)
    link = bind(ask, cpu.limited, numbers, HANDLED, policy.account.address, policy.function, policy, behind, handler)
    if policy.record is not None:
        link = bind(recorded, policy.account.address, policy.record, link, below)
    if policy.counts:
        link = bind(counted, policy.account.address, link, below)
    if policy.condition is not None:
        asks = policy.condition, policy.condition_account.address
        link = bind(conditional, cpu.limited, True, False, *asks, policy, link, below)
    if policy.gate is not None:
        link = bind(*(policy.gate + (link, below)))
    if policy.task is not None:
        link = policy.task(link, below)
    tests = policy.narrower if exact and policy.keys is not None else policy.tests
    return link if tests is None else bind(filtered, uctypes.addressof(tests), link, below)


@micropython.viper
def unanswered(vcpu) -> int:
    """The `below` of each of several links."""
    return _UNANSWERED


@micropython.viper
def filtered(tests: int, link, below, vcpu) -> int:
    """Go on to `link` with an exit that passes all tests, to `below` with any other."""
    t = ptr32(tests)
    f = ptr32(vcpu)
    i = 1
    end = int(t[0])
    while i < end:
        kind = int(t[i])
        word = int(t[i + 1])
        if kind == _EQUAL_LOW:
            if int(f[word]) & int(t[i + 2]) != int(t[i + 4]):
                return int(below(vcpu))
            i += _TEST
            continue
        if kind == _AMONG:
            number = int(f[word])
            bits = ptr8(int(t[i + 2]) | int(t[i + 3]) << 32)
            if number >= int(t[i + 4]) or not bits[number >> 3] >> (number & 7) & 1:
                return int(below(vcpu))
            i += _TEST
            continue
        if kind == _MOVED:
            moved = int(f[QUALIFICATION])
            if moved & (CR_NUMBER | CR_TYPE) != word:
                return int(below(vcpu))
            word = (moved >> 7) & 30
        value = int(f[word]) | int(f[word + 1]) << 32
        first = int(t[i + 2]) | int(t[i + 3]) << 32
        second = int(t[i + 4]) | int(t[i + 5]) << 32
        if kind == _WITHIN:
            value -= first
            if value < 0 or value >= second:
                return int(below(vcpu))
        elif kind != _DIFFERS:
            if value & first != second:
                return int(below(vcpu))
        elif value & first == second:
            return int(below(vcpu))
        i += _TEST
    return int(link(vcpu))


@micropython.viper
def conditional(limited, yes, no, condition, account: int, policy, link, below, vcpu) -> int:
    """Go on to `link` where condition(vcpu) holds, else to `below`."""
    a = ptr32(account)
    f = ptr32(vcpu)
    if a[FLAGS] & PASSES:  # the condition has been asked at this exit
        return int(link(vcpu))
    starts = int(f[STARTS])
    answer = limited(condition, vcpu, account)
    if int(f[STARTS]) == starts and f[STATE] == RUNS:
        if answer is yes:
            return int(link(vcpu))
        if answer is no:
            return int(below(vcpu))
    return int(policy.judge(vcpu, answer, link, below, starts))


@micropython.viper
def counted(account: int, link, below, vcpu) -> int:
    """Go on to `link` with each EVERY-th exit, and set LAST at the last call that LEFT allows."""
    a = ptr32(account)
    if a[FLAGS]:
        return int(link(vcpu))
    if a[EVERY]:
        skipped = int(a[SKIPPED]) + 1
        if skipped < int(a[EVERY]):
            a[SKIPPED] = skipped
            return int(below(vcpu))
        a[SKIPPED] = 0
    left = int(a[LEFT])
    if left:
        left -= 1
        a[LEFT] = left
        if left == 0:
            a[FLAGS] |= LAST
    return int(link(vcpu))


@micropython.viper
def recorded(account: int, record, link, below, vcpu) -> int:
    """Call record(vcpu), viper that answers nothing, in place of the policy's function."""
    a = ptr32(account)
    if a[FLAGS]:
        return int(link(vcpu))
    record(vcpu)
    hits = int(a[CALL_COUNT]) + 1
    a[CALL_COUNT] = hits
    a[CALL_COUNT + 1] = int(a[CALL_COUNT + 1]) + (hits >> 32)
    return int(below(vcpu))


@micropython.viper
def each(links, count: int, below, vcpu) -> int:
    """Ask several policies."""
    f = ptr32(vcpu)
    i = 0
    while i < count:
        answer = int(links[i](vcpu))
        if answer != _UNANSWERED:
            return answer
        i += 1
    answer = int(below(vcpu))
    if f[STATE] == RUNS:
        return answer
    return answer | YIELD


@micropython.viper
def unable(vcpu, numbers: int, handler) -> int:
    """Event.quick of an event without one: Event.value has to be called."""
    return _UNANSWERED


@micropython.viper
def unable_to_skip(vcpu) -> int:
    """Event.quick_skip of an event without one: Event.skip has to be called."""
    return _UNANSWERED


# It names no global: each look-up would take 60 ticks.
@micropython.viper
def ask(limited, numbers, handled, account: int, function, policy, below, handler, vcpu) -> int:
    """Call one policy. It may have paused its guest, or reset it: then the exit is obsolete."""
    a = ptr32(account)
    f = ptr32(vcpu)
    if a[FLAGS]:
        return int(policy.ask(vcpu, below, handler))
    starts = int(f[STARTS])
    answer = limited(function, vcpu, account)
    if int(f[STARTS]) == starts:
        done = _UNANSWERED
        value = int(numbers(answer))
        if value < 0:  # None
            done = int(below(vcpu))
            if f[STATE] != RUNS:
                done |= YIELD
            return done
        if value:
            done = int(policy.quick(vcpu, value, handler))
        elif answer is handled:
            done = ADVANCE if a[PLAIN] else int(policy.quick_skip(vcpu))
        if done != _UNANSWERED:
            if f[STATE] != RUNS:
                done |= YIELD
            return done
    return int(policy.finish(vcpu, answer, below, handler, starts))
