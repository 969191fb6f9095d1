"""The parts of the port's `vmx` module that pure modules use."""

from functools import partial as bind

__all__ = ["bind", "invvpid"]


def invvpid(kind, vpid, gva):
    """No translation is cached here."""
