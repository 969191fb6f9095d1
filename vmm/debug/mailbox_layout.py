"""Layout of the mailbox through which the host asks the monitor (vmm/debug/mailbox.py, port/mailbox.c,
host-tools/pcanel/mailbox.py).
"""

from micropython import const

# Words of 32 bits
RUNG = const(0)  # requests so far
SEEN = const(1)  # requests that port/mailbox.c has passed on
BELLS = const(2)  # bytes of COM1 that announced a request and are no characters
HOST = const(3)
REQUEST_SIZE = const(4)
REPLY_SIZE = const(5)
REPLIED = const(6)  # the number of the request whose reply is there
ASK = const(7)  # 0, ASKED, ANSWERED
ASK_SIZE = const(8)
HEAD = const(9)  # of the ring of events, bytes so far
TAIL = const(10)
ASKED = const(1)
ANSWERED = const(2)

# Offsets and sizes in bytes
ASK_AT = const(0x100)
ASK_ROOM = const(0x3F00)
REQUEST_AT = const(0x4000)
REPLY_AT = const(0xC000)
REQUEST_ROOM = const(REPLY_AT - REQUEST_AT)
REPLY_ROOM = const(0xC000)
RING_AT = const(0x18000)
RING = const(0x8000)
