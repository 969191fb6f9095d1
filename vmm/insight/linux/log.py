"""The kernel's log: the ring of kernel/printk/printk_ringbuffer.c, in kernels from 5.10 on."""

from micropython import const

from vmm.insight import objects
from vmm.insight.table import plain

_RECORDS = const(1 << 20)
_TEXT = const(4096)  # bytes of a record
_STATE = const(62)  # bit of a descriptor's state
_COMMITTED = (1, 2)  # committed, finalized
_ID = const((1 << 62) - 1)
_HEADER = const(8)  # bytes of a block: its ID


class Log(list):
    """[(seconds, text), ...], printed as dmesg prints it."""

    def __repr__(self):
        lines = []
        for seconds, text in self:
            for line in text.split("\n") if isinstance(text, str) else (repr(text),):
                lines.append("[%12.6f] %s" % (seconds, plain(line)))
        return "\n".join(lines)

    __str__ = __repr__


def dmesg(kernel):
    """A Log, the oldest record first."""
    space = kernel.space
    ring = kernel.variable("prb", "struct printk_ringbuffer *")
    descs = ring.desc_ring
    count = 1 << descs.count_bits
    size = 1 << ring.text_data_ring.size_bits
    if count > _RECORDS or size > 1 << 30:
        raise ValueError("the kernel's log says that it has %d records, %d bytes" % (count, size))
    data = int(ring.text_data_ring.data)
    first_desc, first_info = int(descs.descs), int(descs.infos)
    desc, info = descs.descs.target_, descs.infos.target_
    state_at = desc.offset("state_var.counter")
    begin_at, next_at = desc.offset("text_blk_lpos.begin"), desc.offset("text_blk_lpos.next")
    time_at, length_at = info.offset("ts_nsec"), info.offset("text_len")
    number, head = descs.tail_id.counter & _ID, descs.head_id.counter & _ID
    log = Log()
    for _ in range(count):
        index = number & (count - 1)
        at = first_desc + index * desc.size
        state = space.number(at + state_at, 8)
        begin, end = space.number(at + begin_at, 8), space.number(at + next_at, 8)
        if state & _ID == number and state >> _STATE in _COMMITTED and not begin & 1:
            at = first_info + index * info.size
            if begin // size != (end - 1) // size:
                begin = 0  # a block that would wrap lies at the ring's start
            length = min(space.number(at + length_at, 2), _TEXT, max(size - begin % size - _HEADER, 0))
            text = space.read(data + begin % size + _HEADER, length)
            log.append((space.number(at + time_at, 8) // 1000 / 1000000, objects.text(text)))
        if number == head:
            return log
        number = number + 1 & _ID
    return log
