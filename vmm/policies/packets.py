"""Frames of a guest's network interfaces, for policies on PACKET: while one is attached they go through Python.

vmm/network/port.py shows each to Packets.sees(), on its way out of the guest's queue or before it is put into its
receive buffers.
"""

from vmm.network.packet import Packet
from vmm.policies.chain import Chain
from vmm.scheduling.clock import AT_ONCE, cut
from vmm.vtx import reasons


class Packets(Chain):
    """The chain of one VM's policies on PACKET."""

    def __init__(self, vm):
        super().__init__(vm, reasons.PACKET)
        self.packet = None  # the one that policies are asked about
        self._watching = False

    def add(self, policy):
        super().add(policy)
        self._watch()

    def remove(self, policy):
        super().remove(policy)
        self._watch()

    def _watch(self):
        """Watch the ports while there are policies."""
        wanted = bool(self.policies)
        if wanted != self._watching:
            self._watching = wanted
            for port in self.vm.expansion.ports:
                port.watch(self) if wanted else port.unwatch(self)

    def sees(self, port, frame, header, out):
        """Ask the policies: the frame as they leave it, or None."""
        vm = self.vm
        vcpu = vm.vcpus[0]
        outer, self.packet = self.packet, Packet(port, frame, header, out)
        packet = self.packet
        try:
            answer = vm.exits.handler(reasons.PACKET, vcpu)(vcpu)
        finally:
            self.packet = outer
        if answer:
            vm.apply(answer, vcpu)
            cut(vcpu.frame_hpa, AT_ONCE)
        return None if packet.dropped else packet.data


def of(vm):
    """The Packets of a VM. ValueError where it has no network interface."""
    if vm.expansion is None or not vm.expansion.ports:
        raise ValueError("guest %s has no network interface: its file has no [[net]]" % vm.name)
    if vm.expansion.packets is None:
        vm.expansion.packets = Packets(vm)
    return vm.expansion.packets
