"""The parts of the port's `vmx` module that pure modules use."""

from functools import partial as bind

__all__ = ["Value", "bind", "invvpid", "numbers", "tables", "vmread", "vmwrite", "want"]


class Value:
    """A policy's answer."""

    def __init__(self, value):
        self.value = value


def numbers(_answer):
    """No address here: Value() is carried out by Event.value."""
    return 0


def vmread(vcpu, field):
    """VMREAD on a vCPU's VMCS."""
    return vcpu.read(field)


def vmwrite(vcpu, field, value):
    """VMWRITE on a vCPU's VMCS."""
    vcpu.write(field, value)


def tables(vcpu):
    """No paging of IA-32e mode that could be walked in short."""
    return 0


def want(vcpu, bits):
    """A frame of a test has all words."""


def invvpid(kind, vpid, gva):
    """No translation is cached here."""
