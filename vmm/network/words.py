"""The words of ports and switches, which the viper functions of this directory share.

A frame is passed as parts, three words each (hpa low, hpa high, bytes), as in a chain of a virtqueue, with a header of
virtio (12 bytes) that describes the offloads left to be done. Source: virtio 1.2, "Device Operation" of the network
device.
"""

from micropython import const

# Words of a port
UP = const(0)  # its guest is on
WATCHED = const(1)  # its frames take the slow path: policies, captures
CAN = const(2)  # the offloads that its receiver supports: bits of NEEDS, and MERGES
NUMBER = const(3)  # of the port in its switch
STATUS_AT = const(4)  # address of the device's words, low and high; those that follow likewise
RX = const(6)  # states of its queues
TX = const(8)
MEMORY = const(10)  # table of its GuestMemory
RX_CHAIN = const(12)
TX_CHAIN = const(14)
FRAME = const(16)  # hpa of the vCPU's frame, for a guest with one vCPU; else 0
HEADER = const(18)  # three words: the header of the frame that it sends
SOURCE = const(21)  # entry in the switch's table of the last source address
TARGET = const(22)  # entry of the last destination address
SKIP = const(23)  # of the current frame: bytes of its first part before it
SIZE = const(24)  # of the current frame: its bytes
SENT = const(25)  # frames, bytes (two words)
RECEIVED = const(28)  # likewise
DROPPED = const(31)  # frames for which it had no buffers
REFUSED = const(32)  # invalid frames of its guest
CARD = const(33)  # the port is an uplink
FIRST = const(34)  # hpa of the frame of its guest's first vCPU
LEFT = const(36)  # of an uplink: the result of the last send()
PORT_WORDS = const(37)

# Bits of CAN, and of what a frame needs
NEEDS_CSUM = const(1)
NEEDS_TSO4 = const(2)
NEEDS_TSO6 = const(4)
MERGES = const(8)

# Words of a switch
COUNT = const(0)  # 1 + the highest number that a port has had
PORTS = const(1)  # addresses of the ports' words, low and high; 0: no port
MOST_PORTS = const(32)
TABLE = const(PORTS + 2 * MOST_PORTS)
ENTRY = const(3)  # words: bytes 0 to 3 of an address; bytes 4 and 5, | KNOWN; its port
KNOWN = const(0x10000)
ENTRIES = const(256)
WAYS = const(4)  # entries that an address can have
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
LONGEST = const(1518)  # bytes of a frame without segmentation: an MTU of 1500 and a VLAN tag
MOST_BYTES = const(65554)  # bytes of a frame with segmentation

# The ring of captured frames (vmm/network/capture.py): bytes before the ring, and before a record's frame
HEAD = const(32)
RECORD = const(24)
LEAST = const(1 << 16)  # bytes of a ring
MOST = const(1 << 26)
