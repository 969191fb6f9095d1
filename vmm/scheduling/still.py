"""`with still():` at the prompt: guests of every priority stand still.

Without it guests of priority above 0 preempt a line (vmm/scheduling/preemption.py), as a handler does.
"""


class Still:
    """A context manager, and what makes one. It may be nested; a sleep inside it halts the CPU."""

    def __init__(self, scheduler):
        self._scheduler = scheduler

    def __call__(self):
        return self

    def __enter__(self):
        self._scheduler.stand_still(1)
        return self

    def __exit__(self, *_error):
        self._scheduler.stand_still(-1)
