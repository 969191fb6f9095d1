"""Inside gdb: the names of frames that gdb calls `<signal handler called>`, in backtraces.

Of a kernel these are its entries, by system calls, interrupts and exceptions, and where it changes to the stack of its
interrupts (pcanel/kernel/unwind.py).
"""

import gdb
from gdb.FrameDecorator import FrameDecorator


class Named(FrameDecorator):
    """A frame with its function's name, whatever its type."""

    def function(self):
        frame = self.inferior_frame()
        if frame.type() != gdb.SIGTRAMP_FRAME:
            return super().function()
        newer = frame.newer()
        called = newer is not None and newer.type() == gdb.NORMAL_FRAME  # then it is behind a CALL
        return frame.pc() - called  # gdb finds the symbol


class Names:
    """gdb's interface of a frame filter."""

    name = "pcanel"
    priority = 100
    enabled = True

    def filter(self, frames):
        return map(Named, frames)


gdb.frame_filters[Names.name] = Names()
