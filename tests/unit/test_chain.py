"""Policies in front of one exit reason: they are asked in the order of attachment, whichever come and go."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.policies import chain, link

KEYS = range(4)
BELOW = ("device", "words", "slow")


class Exits:
    """Notes what it is told of, and asks for what stands before each key, as vmm/vtx/exits.py does."""

    def __init__(self):
        self.told = []
        self.shown = {}

    def front(self, _reason, front, keys):
        self.told.append(keys)
        if front is None:
            self.shown = {}
            return
        names = front.keys()
        for key in KEYS if keys is None else keys:
            self.shown.pop(key, None)
            if key in names:
                self.shown[key] = [front.named(key, below) for below in BELOW]
        self.shown["others"] = [front.others(below) for below in BELOW]
        self.shown["every"] = [front.every(below) for below in BELOW]


@pytest.fixture(autouse=True)
def links(monkeypatch):
    """A handler is (names of the policies, below); a link the policy's name. Returns the names of links made."""
    made = []

    def one_of(policy, _exact, _below):
        made.append(policy.name)
        return policy.name

    monkeypatch.setattr(link, "one_of", one_of)
    monkeypatch.setattr(link, "several", lambda names, below: (names, below))
    monkeypatch.setattr(link, "_link", lambda policy, _exact, below, _handler: ((policy.name,), below))
    return made


def policy(name, keys):
    return SimpleNamespace(name=name, keys=keys)


def plainly(policies, below):
    return (tuple(each.name for each in policies), below) if policies else below


@given(
    st.lists(
        st.tuples(st.none() | st.sets(st.sampled_from(KEYS), min_size=1), st.integers(0, 7), st.booleans()), max_size=12
    )
)
def test_what_stands_before_each_key(steps):
    exits = Exits()
    asked = chain.Chain(SimpleNamespace(exits=exits), 30)
    attached = []
    for number, (keys, which, detaches) in enumerate(steps):
        if detaches and attached:
            asked.remove(attached.pop(which % len(attached)))
        else:
            attached.append(policy(f"p{number}", keys))
            asked.add(attached[-1])
        named = {key for each in attached for key in each.keys or ()}
        unnamed = [each for each in attached if each.keys is None]
        expected = {
            key: [
                plainly([each for each in attached if each.keys is None or key in each.keys], below) for below in BELOW
            ]
            for key in named
        }
        if attached:
            expected["others"] = [plainly(unnamed, below) for below in BELOW]
            expected["every"] = [plainly(attached, below) for below in BELOW]
        assert exits.shown == expected


def test_a_further_policy_is_one_further_link(links):
    exits = Exits()
    asked = chain.Chain(SimpleNamespace(exits=exits), 30)
    for number in range(2):
        asked.add(policy(f"p{number}", None))
    for number in range(2, 50):
        links.clear()
        asked.add(policy(f"p{number}", None))
        assert links == [f"p{number}"] * 2 * len(BELOW)  # for exits of any key, and of those that none names


def test_keys_that_a_policy_names_are_told_alone():
    exits = Exits()
    asked = chain.Chain(SimpleNamespace(exits=exits), 30)
    first = policy("first", (1, 2))
    asked.add(first)
    asked.add(policy("second", (2,)))
    assert exits.shown[1] != exits.shown[2]
    asked.remove(first)
    assert exits.told == [(1, 2), (2,), (1, 2)]
    assert 1 not in exits.shown
