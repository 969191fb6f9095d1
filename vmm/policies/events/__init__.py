"""The events that policies can answer, one class and one file each; this table names them all.

port/modules/main.py puts WORDS at the prompt. docs/policies.md, "How to add an event".
"""

from vmm.policies.events.cpuid import CPUID
from vmm.policies.events.exception import EXCEPTION
from vmm.policies.events.hlt import HLT
from vmm.policies.events.io import IO
from vmm.policies.events.memory import MEMORY
from vmm.policies.events.mov_dr import MOV_DR
from vmm.policies.events.msr import RDMSR, WRMSR
from vmm.policies.events.tsc import RDTSC
from vmm.policies.events.vmcall import VMCALL

EVENTS = {event.name: event for event in (CPUID, EXCEPTION, HLT, IO, MEMORY, MOV_DR, RDMSR, RDTSC, VMCALL, WRMSR)}
WORDS = {name.upper(): event for name, event in EVENTS.items()}


def find(event):
    """The event that a user names, by its word or by its name. ValueError, with the names that there are."""
    found = EVENTS.get(event) if isinstance(event, str) else event
    if found not in EVENTS.values():
        raise ValueError("event %r is unknown; there are %s" % (event, ", ".join(sorted(EVENTS))))
    return found
