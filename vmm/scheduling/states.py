"""States of a VM: vm.state, and the word of its vCPU frame that the scheduler reads."""

from micropython import const

RUNNING = "running"
HALTED = "halted"
PAUSED = "paused"
STOPPED = "stopped"
OFF = "off"
WAIT_FOR_SIPI = "wait-for-SIPI"  # of a vCPU

# Values of frame.STATE.
STILL = const(0)  # paused, stopped, off
RUNS = const(1)
WAITS = const(2)  # halted, or wait-for-SIPI
HOLD = const(0x100)  # added by each VM.hold(1): neither of these, and the guest is not entered
