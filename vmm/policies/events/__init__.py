"""The events that policies can answer, one class and one file each: those that are imported here.

port/modules/main.py puts WORDS at the prompt. docs/policies.md, "How to add an event".
"""

from vmm.policies.event import Event
from vmm.policies.events.caches import INVD, WBINVD
from vmm.policies.events.call import CALL, RETURN
from vmm.policies.events.cpuid import CPUID
from vmm.policies.events.cr import CR
from vmm.policies.events.descriptor_table import DESCRIPTOR_TABLE
from vmm.policies.events.ends import RESET, TRIPLE_FAULT
from vmm.policies.events.exception import EXCEPTION
from vmm.policies.events.execute import EXECUTE
from vmm.policies.events.hlt import HLT
from vmm.policies.events.injection import INJECTION
from vmm.policies.events.interrupt import ARRIVAL, INTERRUPT
from vmm.policies.events.io import IO
from vmm.policies.events.memory import MEMORY
from vmm.policies.events.mode import MODE
from vmm.policies.events.mov_dr import MOV_DR
from vmm.policies.events.msr import RDMSR, WRMSR
from vmm.policies.events.packet import PACKET
from vmm.policies.events.pause import PAUSE
from vmm.policies.events.rdpmc import RDPMC
from vmm.policies.events.rdrand import RDRAND, RDSEED
from vmm.policies.events.step import RING, STEP
from vmm.policies.events.switch import SWITCH
from vmm.policies.events.syscall import SYSCALL
from vmm.policies.events.sysret import SYSCALL32, SYSRET, SYSRET32
from vmm.policies.events.time import TIME
from vmm.policies.events.tlb import INVLPG, INVPCID
from vmm.policies.events.tsc import RDTSC, RDTSCP
from vmm.policies.events.vmcall import VMCALL
from vmm.policies.events.watch import READ, WRITE
from vmm.policies.events.xsetbv import XSETBV

EVENTS = {event.name: event for event in globals().values() if isinstance(event, Event)}
WORDS = {name.upper(): event for name, event in EVENTS.items()}


def find(event):
    """The event that a user names, by its word or by its name. ValueError, with the names that there are."""
    found = EVENTS.get(event) if isinstance(event, str) else event
    if found not in EVENTS.values():
        raise ValueError("event %r is unknown; there are %s" % (event, ", ".join(sorted(EVENTS))))
    return found
