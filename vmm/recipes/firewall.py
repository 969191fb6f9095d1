"""MSRs and ports that a guest may not access.

    from vmm.recipes import firewall
    f = firewall.deny(vms['linux'], msrs=[0x1A0], ports=[0x70, 0xCF8])
    f                                      # what was refused, and how often; f.stop()

RDMSR and WRMSR raise #GP(0), IN reads all ones, OUT has no effect.
"""

from vmm.fault import GP
from vmm.policies.events.io import IO
from vmm.policies.events.msr import RDMSR, WRMSR
from vmm.verdict import HANDLED, Inject, Value


class Firewall:
    """policies: [(text, policy), ...]."""

    def __init__(self, vm, msrs, ports):
        fault = Inject(GP, 0)
        ones = Value(0xFFFFFFFF)

        def refuses(vcpu):
            return fault

        def answers(vcpu):
            return ones

        def drops(vcpu):
            return HANDLED

        self.policies = []
        try:
            for msr in msrs:
                for event in (RDMSR, WRMSR):
                    self._add(str(event) + " %#x", msr, vm.on(event, msr=msr)(refuses))
            for port in ports:
                self._add("in %#x", port, vm.on(IO, port=port, write=False)(answers))
                self._add("out %#x", port, vm.on(IO, port=port, write=True)(drops))
        except BaseException:
            self.stop()
            raise

    def _add(self, text, number, policy):
        self.policies.append((text % number, policy))

    def stop(self):
        """Allow the accesses again."""
        for _, policy in self.policies:
            policy.detach()

    def __repr__(self):
        return "\n".join(["%s: %d refused" % (text, policy.hits) for text, policy in self.policies])


def deny(vm, msrs=(), ports=()):
    """Refuse accesses from now on; returns the Firewall."""
    return Firewall(vm, msrs, ports)
