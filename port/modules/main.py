"""What the image does after boot.py when the file system has no main.py: the monitor.

Leaves `monitor`, `vms`, `caps`, `mitigations`, `sched`, `still`, `recipes`, `traceback`, the native modules and the
words of a policy at the prompt.
"""

import micropython

# A start that Ctrl-C ends (pcanel exec and mpremote type it) would leave half a monitor. Until the
# prompt it is a character like any other, but for policy files, which may loop.
micropython.kbd_intr(-1)

import builtins
import sys

import cpu
import machine
import multiboot
import vmx

from vmm import recipes
from vmm.boot import load_guests, load_history, run_policies, start_guests
from vmm.monitor import Monitor
from vmm.policies.events import WORDS
from vmm.prompt import Help, Traceback, completer, displayer, lister, more
from vmm.verdict import DEFAULT, HANDLED, PAUSED, RETRY, SKIP, Inject, Value

globals().update(WORDS)  # CPUID, IO, ...
sys.modules["recipes"] = recipes  # from recipes import strace
monitor = Monitor()
vms = monitor.vms
caps = vmx_caps = monitor.caps
mitigations = monitor.mitigations
sched = monitor.scheduler
still = sched.still
help = Help(globals())
dir = lister(globals())
cpu.completer(completer(globals()))
builtins.__repl_print__ = displayer()
traceback = Traceback()
cpu.errors(traceback.tell)

for _line in vmx_caps.missing:
    print("no guests here: " + _line)
_modules = load_guests(monitor)
load_history(_modules)
micropython.kbd_intr(3)
run_policies(_modules, globals())
micropython.kbd_intr(-1)
start_guests(monitor)
