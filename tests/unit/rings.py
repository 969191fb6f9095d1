"""A driver's side of a virtqueue in a test's memory, and rings of nonsense."""

import struct

from support import Memory

DESC, AVAIL, USED, DATA = 0x1000, 0x2000, 0x3000, 0x10000
NEXT, WRITE, INDIRECT = 1, 2, 4
SIZE = 0x40000


class Driver:
    """Puts chains of buffers on queue n of a device, and looks at what comes back."""

    def __init__(self, memory, queue, size=8, at=0):
        self.memory = memory
        self.queue = queue
        self.size = size
        self.desc, self.avail, self.used = DESC + at, AVAIL + at, USED + at
        queue.size = size
        queue.addresses = [self.desc, self.avail, self.used]
        self.added = 0
        self.seen = 0

    def describe(self, index, gpa, length, flags=0, following=0, table=None):
        self.memory.write((table or self.desc) + 16 * index, struct.pack("<QIHH", gpa, length, flags, following))

    def chain(self, first, *parts, table=None):
        """Descriptors from `first` on; parts: (gpa, bytes, writable)."""
        for i, (gpa, length, writable) in enumerate(parts):
            flags = (WRITE if writable else 0) | (NEXT if i + 1 < len(parts) else 0)
            self.describe(first + i, gpa, length, flags, first + i + 1, table)

    def add(self, head):
        self.memory.write_u16(self.avail + 4 + 2 * (self.added % self.size), head)
        self.added = self.added + 1 & 0xFFFF
        self.memory.write_u16(self.avail + 2, self.added)

    def used_index(self):
        return self.memory.read_u16(self.used + 2)

    def back(self):
        """[(head, bytes written), ...] since the last call."""
        out = []
        while self.seen != self.used_index():
            at = self.used + 4 + 8 * (self.seen % self.size)
            out.append((self.memory.read_u32(at), self.memory.read_u32(at + 4)))
            self.seen = self.seen + 1 & 0xFFFF
        return out


def nonsense(random, memory, base=0):
    """Fill the rings, `base` behind the usual place, with random words, most of them nearly valid."""
    for index in range(64):
        gpa = random.choice((random.randrange(SIZE), random.randrange(1 << 64), SIZE - 1, DESC, AVAIL, USED))
        length = random.choice((0, 1, 16, 512, 513, random.randrange(1 << 32), SIZE))
        some = random.randrange(1 << 16)
        flags = random.choice((0, NEXT, NEXT, WRITE, NEXT | WRITE, INDIRECT, INDIRECT | NEXT, some))
        following = random.choice((random.randrange(9), random.randrange(1 << 16)))
        memory.write(base + DESC + 16 * index, struct.pack("<QIHH", gpa, length, flags, following))
    ring = [random.choice((0, 1)), random.choice((0, 1, 3, 8, 9, random.randrange(1 << 16)))]
    ring += [random.choice((random.randrange(8), random.randrange(1 << 16))) for _ in range(9)]
    memory.write(base + AVAIL, struct.pack("<11H", *ring))


def memory():
    return Memory(SIZE)
