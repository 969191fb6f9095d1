"""Policies of the gdb stub: they stand in the chain of their event as any other, and are not listed in vm.policies."""

from vmm.policies.policy import decorator


def attach(vm, event, function, filters):
    """Returns the attached Policy."""
    return decorator(vm, event, filters)(function)
