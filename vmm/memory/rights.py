"""Which pages are watched, and the rights that remain to these pages.

The rights of a page in EPT are its mapping's own, less those that each watcher takes away, rounded to what EPT can
express: there are no pages that can be written and not read, and none that can only be executed where the CPU lacks
them. Nothing else changes rights, so watchers come and go in any order, and a window that a guest may only read stays
read-only. Source: SDM Vol. 3C, "EPT Misconfigurations".

A page can also be split: fetches go to another page of the host than reads and writes do (show()). It is execute-only
then, except during a step, which has its other rights and the page itself. Where EPT has no such pages it cannot
be accessed at all meanwhile.
"""

from vmm.memory.ept import RWX, R, W, X


class Rights:
    """One guest's. ept: its vmm.memory.ept.Ept. execute_only: EPT has pages with X alone."""

    def __init__(self, ept, execute_only):
        self._ept = ept
        self._execute_only = execute_only
        self._taken = {}  # gpa: {watcher: rights that it takes away}
        self._lent = {}  # gpa: rights lent for one step
        self._shown = {}  # gpa: (hpa that fetches see, hpa of its own, written())
        ept.made = self._made

    def take(self, gpa, watcher, rights):
        """A watcher takes these rights (R, W, X or-ed) from the page at gpa, in place of those before; 0: none.

        The caller invalidates.
        """
        takers = self._taken.setdefault(gpa, {})
        if rights:
            takers[watcher] = rights
        else:
            takers.pop(watcher, None)
        if not takers:
            del self._taken[gpa]
        self._apply(gpa)

    def left(self, gpa):
        """The rights at gpa that no watcher takes away: R, W, X or-ed."""
        rights = RWX
        for taken in self._taken.get(gpa, {}).values():
            rights &= ~taken
        if not rights & R:
            rights &= ~W
            if not self._execute_only:
                rights &= ~X
        return rights

    def watchers(self, gpa):
        """[(watcher, rights that it takes away), ...] of the page at gpa."""
        return list(self._taken.get(gpa, {}).items())

    def taken(self, gpa):
        """Whether a watcher has taken rights from the page at gpa."""
        return gpa in self._taken

    def show(self, gpa, hpa, own, written=None):
        """Fetches from the page at gpa see the page at `hpa`, its own is `own`; None: they see its own again.

        written(): called when a step has been lent the right to write to it. The caller takes R and W, and invalidates.
        """
        self._shown[gpa] = hpa, own, written
        self._apply(gpa)
        if hpa is None:
            del self._shown[gpa]

    def lend(self, gpa, rights):
        """Give a watched page these rights of its mapping, and those lent before, until restore()."""
        have = self._lent.get(gpa, self.left(gpa))
        if not rights & ~have:
            have = RWX  # the CPU refused a right that should be there: lend all, or the exit repeats for ever
        have |= rights
        if have & W or have & X and not self._execute_only:
            have |= R
        self._lent[gpa] = have
        self._apply(gpa)
        self._ept.invalidate()

    def restore(self):
        """Take the lent rights away again."""
        if self._lent:
            lent, self._lent = self._lent, {}
            for gpa in lent:
                self._apply(gpa)
                if gpa in self._shown and lent[gpa] & W:
                    self._shown[gpa][2]()
            self._ept.invalidate()

    def _apply(self, gpa):
        rights = self._lent.get(gpa, self.left(gpa))
        hpa = None
        if gpa in self._shown:
            shown, own, _ = self._shown[gpa]
            hpa = own if shown is None or rights & (R | W) else shown
        self._ept.narrow(gpa, rights, hpa)

    def _made(self, gpa, size):
        """Leaves have been rewritten: narrow the watched pages among them again."""
        for page in self._taken:
            if gpa <= page < gpa + size:
                self._apply(page)
