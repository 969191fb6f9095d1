"""The policies in front of the handlers of one exit reason: layer 3 of the dispatch table (vmm/vtx/exits.py).

They are asked in the order of attachment until one answers; else the very handler that they stand in front of goes
on, that of the key where the exit has one. vmm/policies/link.py makes the handlers that do so. A policy that names keys
changes what stands before exits of these keys, and nothing else, however many others are attached.
"""

from vmm.policies import link


class Chain:
    """The policies of one exit reason, of all events. vm: their guest."""

    def __init__(self, vm, reason):
        self.vm = vm
        self.reason = reason
        self._all = _Asked((), False)
        self._named = {}  # key that a policy names: what its exits ask
        self._unnamed = _Asked((), True)  # what exits with any other key ask

    @property
    def policies(self):
        """All of them, a tuple."""
        return self._all.policies

    def add(self, policy):
        """Add a policy, which is asked after the others."""
        self._all = self._all.plus(policy)
        changed = {}  # id of a set before: (it, the set after), which its keys share
        if policy.keys is None:
            self._unnamed = _once(changed, self._unnamed, policy, _Asked.plus)
        for key in set(self._named if policy.keys is None else policy.keys):
            self._named[key] = _once(changed, self._named.get(key, self._unnamed), policy, _Asked.plus)
        self._changed(policy)

    def remove(self, policy):
        """Remove a policy, if it is there."""
        if policy not in self.policies:
            return
        self._all = self._all.less(policy)
        changed = {}
        if policy.keys is None:
            self._unnamed = _once(changed, self._unnamed, policy, _Asked.less)
        for key in set(self._named if policy.keys is None else policy.keys):
            left = _once(changed, self._named[key], policy, _Asked.less)
            if any([other.keys is not None for other in left.policies]):
                self._named[key] = left
            else:
                del self._named[key]
        self._changed(policy)

    def _changed(self, policy):
        self.vm.exits.front(self.reason, self if self.policies else None, policy.keys)

    # -- for Exits.front

    def keys(self):
        """The keys that policies name."""
        return self._named

    def named(self, key, below):
        """Return the handler in front of `below` for exits with a key of keys()."""
        return self._named[key].before(below)

    def others(self, below):
        """The same for exits with any other key."""
        return self._unnamed.before(below)

    def every(self, below):
        """The same for exits of any key."""
        return self._all.before(below)


class _Asked:
    """Policies that are called one after the other. Immutable: an exit may be in the middle of it.

    One handler object stands before each `below`: it needs one slot of the table. exact: as link.before has it.
    """

    def __init__(self, policies, exact):
        self.policies = policies
        self._exact = exact
        self._made = {}  # id(below): (it, the handler, its links)

    def before(self, below):
        """Return the handler that calls them, and then `below` if none answers."""
        made = self._made.get(id(below))
        if made is None:
            handler, links = link.chained(self.policies, self._exact, below)
            made = self._made[id(below)] = below, handler, links
        return made[1]

    def plus(self, policy):
        """With a further policy, which is called last. The links of the others stay."""
        more = _Asked(self.policies + (policy,), self._exact)
        for below, _, links in self._made.values():
            if links:
                links += (link.one_of(policy, self._exact, below),)
                more._made[id(below)] = below, link.several(links, below), links
        return more

    def less(self, policy):
        """Without a policy."""
        at = self.policies.index(policy)
        fewer = _Asked(self.policies[:at] + self.policies[at + 1 :], self._exact)
        for below, _, links in self._made.values():
            if len(links) > 2:
                links = links[:at] + links[at + 1 :]
                fewer._made[id(below)] = below, link.several(links, below), links
        return fewer


def _once(changed, asked, policy, change):
    """change(asked, policy), the same for the same `asked`."""
    if id(asked) not in changed:
        changed[id(asked)] = asked, change(asked, policy)
    return changed[id(asked)][1]
