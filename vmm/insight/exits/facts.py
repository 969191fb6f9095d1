"""Where the host finds the frames and rings of all guests: for pcanel trace and pcanel top."""

import cpu

from vmm.insight.exits import records


def of(vms):
    """A dict of numbers and texts. heap: bytes of it, and of these free at least; vcpus: (hpa of the frame, state)."""
    guests = []
    for name in sorted(vms):
        vm = vms[name]
        guests.append({
            "name": name,
            "state": vm.state,
            "priority": vm.priority,
            "share": vm.share,
            "vcpus": [(vcpu.frame_hpa, vcpu.scheduled.state) for vcpu in vm.vcpus],
        })  # fmt: skip
    return {"hz": cpu.tsc_hz, "tsc": cpu.rdtsc(), "heap": (cpu.heap()[0], cpu.heap_free()), "guests": guests}


def names(vm, addresses):
    """The symbols of addresses, "" for those in none."""
    return [records.name(vm, gva) for gva in addresses]
