"""The words of ports and switches: what the viper functions of this directory share.

A frame travels as parts, three words each (hpa low, hpa high, bytes), as in a chain of a virtqueue, with a header of
virtio (12 bytes) that says what is left to be done to it. Source: virtio 1.2, "Device Operation" of the network device.
"""

from micropython import const

# Words of a port
UP = const(0)  # it is plugged in, and its guest is on
WATCHED = const(1)  # its frames go through Python: policies, captures, an uplink
CAN = const(2)  # what its receiver does itself: bits of NEEDS, and MERGES
NUMBER = const(3)  # in its switch
STATUS_AT = const(4)  # address of the device's words, low and high; those that follow likewise
RX = const(6)  # states of its queues
TX = const(8)
MEMORY = const(10)  # table of its GuestMemory
RX_CHAIN = const(12)
TX_CHAIN = const(14)
FRAME = const(16)  # hpa of its vCPU's frame, where the guest has one alone
HEADER = const(18)  # three words: the header of the frame that it sends
SOURCE = const(21)  # place in the switch's table of the address that it sent from last
TARGET = const(22)  # and of the one that it sent to
SKIP = const(23)  # of the frame that send() leaves to Python: bytes of the chain before it, and its own
SIZE = const(24)
SENT = const(25)  # frames, bytes (two words)
RECEIVED = const(28)  # likewise
DROPPED = const(31)  # frames for which it had no buffers
REFUSED = const(32)  # frames of its guest that are none
CARD = const(33)  # it is an uplink, behind which is a card of the machine
FIRST = const(34)  # hpa of the frame of its guest's first vCPU
LEFT = const(36)  # of an uplink: what the last look at its card has left, as pop() has it
PORT_WORDS = const(37)

# Bits of CAN, and of what a frame needs
NEEDS_CSUM = const(1)
NEEDS_TSO4 = const(2)
NEEDS_TSO6 = const(4)
MERGES = const(8)

# Words of a switch
COUNT = const(0)  # ports that there have been
PORTS = const(1)  # addresses of their words, low and high; 0 where none is
MOST_PORTS = const(32)
TABLE = const(PORTS + 2 * MOST_PORTS)
ENTRY = const(3)  # words: bytes 0 to 3 of an address; bytes 4 and 5, | KNOWN; its port
KNOWN = const(0x10000)
ENTRIES = const(256)
WAYS = const(4)  # places that an address may have
SWITCH_WORDS = const(TABLE + ENTRY * ENTRIES)

# The header
HEADER_BYTES = const(12)
CSUM = const(1)  # flags
TCPV4 = const(1)  # type of segmentation
TCPV6 = const(4)

ETHERNET = const(14)
IPV4 = const(0x0800)  # EtherTypes
IPV6 = const(0x86DD)
TCP = const(6)  # protocol number
PSH = const(0x08)  # a flag of TCP
LONGEST = const(1518)  # bytes of a frame that no segmentation is wanted for: an MTU of 1500 and a VLAN tag
MOST_BYTES = const(65554)  # of one that is to be cut

# The ring of captured frames (vmm/network/capture.py): bytes before the ring, and before a record's frame
HEAD = const(32)
RECORD = const(24)
LEAST = const(1 << 16)  # bytes of a ring
MOST = const(1 << 26)
