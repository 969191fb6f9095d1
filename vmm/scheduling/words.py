"""The scheduler's words: what the viper functions of this directory share. vmm/scheduling/sched.py makes the arrays."""

from micropython import const

# Bytecode is interrupted so many ticks before a guest above is woken for its timer, since it checks the clock only
# between some of its steps. The scheduler waits for what is left of them.
AHEAD = const(6000)

# A poll of consoles and drivers is not interrupted. From so many ticks before a guest above is due it waits.
POLL_TICKS = const(25000)

FINE = const(8)  # virtual time: ticks used, shifted by this, by the share

# Words of Scheduler._words.
COUNT = const(0)
INSIDE = const(4)  # number of the guest whose exit loop runs, plus 1
SWITCHES = const(5)
LAST = const(6)  # frame of the guest that ran last
FLOOR = const(7)  # guests below this priority are not looked at: one of them is interrupted
DEFERRED = const(8)  # bits of the work that is deferred until no handler is interrupted
AGAIN = const(9)  # two words: host TSC at which the next guest above the floor is due
ABOVE = const(11)  # the lowest priority that interrupts what runs now
NESTED = const(12)  # two words: time of all guests in the middle of what was interrupted
CALLED = const(14)  # number of the halted guest whose timers are called back, plus 1
LINE = const(15)  # a line at the prompt runs; LINE_INTERRUPTED: guests run in its middle
STILLS = const(16)  # how many `with still()` there are
SERVED = const(17)  # frame of the guest for which a driver works between turns
POLL_SINCE = const(18)  # two words of port/coalesce.c: since when a poll waits for a guest that is due; 0: none does
WORDS = const(20)

# Values of LINE.
LINE_RUNS = const(1)
LINE_INTERRUPTED = const(2)
WORK_INTERRUPTED = const(3)  # of a driver or a console, between turns

# Bits of DEFERRED.
POLL = const(1)  # consoles
TIES = const(2)  # characters and interrupts between guests
GARBAGE = const(4)  # of fresh() only

# Words of Scheduler._levels: whose turn it is among equals that can all run.
LEVEL = const(3)  # log2 of the words for each priority
NOW = const(0)  # two words: virtual time
HOLDER = const(2)  # frame of the guest that had the last turn; 0 where it was alone, or another has woken up
END = const(4)  # two words: host TSC at which that turn ends, even if guests above preempt it

# Words of Scheduler._collect_at (port/budget.c): blocks of the heap allocated since the last garbage collection after
# which there is another, where a guest above can interrupt it, and where none would.
COLLECT = const(0)
COLLECT_AT_LAST = const(2)
PAYER = const(4)  # hpa of the frame of the guest to which allocations are charged, 0: none
