"""What stands in for the parts of a VM that has been destroyed: their memory may be another's by now."""


class Gone:
    """Every use raises RuntimeError, which names the guest."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        raise RuntimeError("guest %s has been destroyed" % self._name)
