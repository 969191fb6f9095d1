"""Frames that a guest sends or gets."""

from vmm import verdict
from vmm.policies.event import Event
from vmm.policies.filters import Number, OneOf
from vmm.vtx import reasons


class PacketEvent(Event):
    """Asked in the exit of the sender, whichever guest that is; vcpu.packet is the frame, and RIP means nothing."""

    name = "packet"
    text = (
        "a frame from a network interface of the guest, or for one: vcpu.packet, whose data may be changed. HANDLED: "
        'it is dropped. Value(bytes): that goes instead. virtio 1.2, "Network Device"'
    )
    reasons = (reasons.PACKET,)
    filters = (
        OneOf("out", (True, False), "the guest sends it, or gets it"),
        Number("ethertype", 0xFFFF, "0x800 is IPv4"),
        Number("port", 0xFFFF, "of TCP or UDP, the source's or the destination's"),
        Number("protocol", 0xFF, "IP's: 1 ICMP, 6 TCP, 17 UDP"),
        Number("net", 7, "the interface's number"),
    )
    plain = False
    repeats = False

    def of(self, vm, chosen):
        from vmm.policies import packets

        packets.of(vm)
        return self

    def chains(self, vm):
        return [vm.expansion.packets]

    def accepts(self, chosen):
        plain = [name for name in ("out", "ethertype", "protocol", "net") if name in chosen]
        port = chosen.get("port")
        if not plain and port is None:
            return None

        def accepted(vcpu):
            packet = vcpu.packet
            for name in plain:
                if getattr(packet, name) != chosen[name]:
                    return False
            return port is None or port in (packet.ports or ())

        return accepted

    def skip(self, vcpu):
        vcpu.packet.dropped = True
        return verdict.RESUME

    def value(self, vcpu, value, handler):
        from vmm.network import packet

        packet.check(value)
        vcpu.packet.data = bytearray(value)
        return handler(vcpu)

    def behind(self, policy, below):
        def go_on(vcpu):
            wrong = vcpu.packet.wrong()
            return policy.broken(vcpu, wrong) if wrong else below(vcpu)

        return go_on

    def inject(self, vcpu):
        raise ValueError("no exception can be delivered for a packet")


PACKET = PacketEvent()
