"""The policies in front of the handlers of one exit reason: layer 3 of the dispatch table (vmm/vtx/exits.py).

They are asked in the order of attachment until one answers; else the very handler that they stand in front of goes
on, that of the key where the exit has one. vmm/policies/link.py makes the handlers that do so.
"""

from vmm.policies import link


class Chain:
    """One exit reason's policies, of whatever events. vm: their guest."""

    def __init__(self, vm, reason):
        self.vm = vm
        self.reason = reason
        self.policies = ()
        self._named = {}  # key: the policies that its exits concern
        self._unnamed = ()  # those that exits of any key concern
        self._known = {}  # (policies' ids, below): handler, while the table is computed

    def add(self, policy):
        self._change(self.policies + (policy,))

    def remove(self, policy):
        self._change(tuple([other for other in self.policies if other is not policy]))

    def _change(self, policies):
        """A new tuple: the one before may be in use by an exit that this happens in."""
        self.policies = policies
        self._known = {}
        self._named = named = {}
        unnamed = []
        for policy in policies:
            if policy.keys is None:
                unnamed.append(policy)
                for key in named:
                    named[key].append(policy)
            for key in policy.keys or ():
                if key not in named:
                    named[key] = list(unnamed)
                named[key].append(policy)
        self._unnamed = unnamed
        self.vm.exits.front(self.reason, self if policies else None)

    # -- for Exits.front

    def keys(self):
        """The keys that policies name."""
        return self._named

    def named(self, key, below):
        """Return what stands before `below` for exits with a key of keys()."""
        return self._before(self._named[key], True, below)

    def others(self, below):
        """The same for exits with any other key."""
        return self._before(self._unnamed, True, below)

    def every(self, below):
        """The same for exits of any key."""
        return self._before(self.policies, False, below)

    def _before(self, policies, exact, below):
        """One handler object where policies and `below` are the same: it needs one slot of the table."""
        known = tuple([id(policy) for policy in policies] + [exact, id(below)])
        if known not in self._known:
            self._known[known] = link.before(policies, exact, below)
        return self._known[known]
