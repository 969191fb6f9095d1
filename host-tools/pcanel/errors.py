"""What can go wrong, by the exit status it leads to."""


class PcanelError(Exception):
    """The monitor or the engine failed, or a wait reached its limit: exit status 1."""


class EngineError(PcanelError):
    """The engine did not start, or ended when it should not have."""


class ConsoleTimeout(PcanelError):
    """A console did not show what was waited for within the limit."""


class PolicyError(PcanelError):
    """A policy file failed on the monitor; the text is what it said."""


class InputError(PcanelError):
    """Bad usage or bad input (a guest file, a missing file, an unknown name): exit status 2."""
