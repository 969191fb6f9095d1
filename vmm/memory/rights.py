"""The watched pages of a guest, and their rights in EPT.

A page's rights are its mapping's, less those that each watcher takes away, reduced to what EPT can express: a page that
is writable is readable, and execute-only pages need the CPU's support. Rights are changed nowhere else, so watchers can
be added and removed in any order, and a read-only window stays read-only. Source: SDM Vol. 3C, "EPT Misconfigurations".

A page can also be split: fetches use another host page than reads and writes (show()). It is execute-only then, except
during a step, which has the page's other rights and the page itself. Without execute-only pages in EPT it is not
accessible at all meanwhile.
"""

from vmm.memory.ept import RWX, R, W, X


class Rights:
    """The rights of one guest. ept: its vmm.memory.ept.Ept. execute_only: whether EPT supports pages with X only."""

    def __init__(self, ept, execute_only):
        self._ept = ept
        self._execute_only = execute_only
        self._taken = {}  # gpa: {watcher: rights that it takes away}
        self._lent = {}  # gpa: rights lent for one step
        self._shown = {}  # gpa: (hpa for fetches, hpa of its own, written())
        ept.made = self._made

    def take(self, gpa, watcher, rights):
        """A watcher takes these rights (R, W, X or-ed) away from the page at gpa, instead of those before; 0: none.

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
        """Make fetches from the page at gpa use the page at `hpa`; None: its own again, which is at `own`.

        written(): called after a step that was lent W, since it may have written to the page. The caller takes R and W
        away, and invalidates.
        """
        self._shown[gpa] = hpa, own, written
        self._apply(gpa)
        if hpa is None:
            del self._shown[gpa]

    def lend(self, gpa, rights):
        """Lend a watched page these rights of its mapping, in addition to those lent before, until restore()."""
        have = self._lent.get(gpa, self.left(gpa))
        if not rights & ~have:
            have = RWX  # the CPU refused a right that the page has: lend all, or the exit would repeat forever
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
        """Leaves have been written with full rights: narrow the watched pages among them again."""
        for page in self._taken:
            if gpa <= page < gpa + size:
                self._apply(page)
