"""At the prompt: the machine's disks as a guest's requests use them. Prints what each step found."""

from array import array

import cpu

from vmm.host import Request, words_of
from vmm.host.drives import Drives


class Guest:
    name = "g"
    priority = 0

    @property
    def vm(self):
        return self


class Scheduler:
    """What a driver uses of the scheduler's."""

    def __init__(self):
        self.drivers = []

    def poll_later(self):
        pass

    def serve(self, vm, work):
        return work()


scheduler, guest = Scheduler(), Guest()
drives = Drives(scheduler, monitor.pages)  # noqa: F821


def transfer(drive, kind, sector, parts):
    """ok, of a request that is waited for."""
    answer = []
    words, sectors = words_of(parts) if parts else (array("I"), 0)
    drive.submit(Request(guest, kind, sector, words, sectors, answer.append))
    end = cpu.rdtsc() + 20 * cpu.tsc_hz
    while not answer and cpu.rdtsc() < end:
        for look in scheduler.drivers:
            look(0)
    return answer[0]


def pieces(at, sizes):
    out = []
    for size in sizes:
        out.append((at, size))
        at += size
    return out
