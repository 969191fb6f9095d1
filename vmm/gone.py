"""Stands in for the parts of a destroyed VM, whose memory may be in use by another guest."""


class Gone:
    """Every use raises RuntimeError, which names the guest."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        raise RuntimeError("guest %s has been destroyed" % self._name)
