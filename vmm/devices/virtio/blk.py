"""A disk by virtio. Source: virtio 1.2, "Block Device".

Requests whose disk is quick (vmm/disks) are served in viper, within the exit by which the driver notifies, or one after
the other as the disk ends them; others when the disk has done them, in any order. A request is a header of 16 bytes,
data, and a status of one byte, in buffers of any cut.
"""

import struct

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.virtio.device import DRIVER_OK, NEEDS_RESET, STATUS, Device
from vmm.devices.virtio.queue import (
    BUFFER,
    BUFFERS,
    CHAIN,
    HEAD,
    IN,
    NOTHING,
    OUT,
    SEGMENTS,
    WRONG,
    buffers,
    cut,
    gather,
    interrupts,
    new_chain,
    pop,
    push,
)
from vmm.disks import SECTOR, UNDER_WAY
from vmm.host import FLUSH

SEG_MAX = const(1 << 2)
_RO = const(1 << 5)
_BLK_SIZE = const(1 << 6)
BLK_FLUSH = const(1 << 9)

BLK_IN = const(0)
BLK_OUT = const(1)
BLK_SYNC = const(4)
GET_ID = const(8)

_OK = const(0)
_IOERR = const(1)
_UNSUPP = const(2)

HEADER = const(16)
_DATA = const(BUFFERS + BUFFER)  # of a chain: its first buffer behind the header
ID_BYTES = const(20)

# Words of `words`, behind STATUS
_WRITABLE = const(1)
_COUNTS = const(2)  # reads, sectors read, writes, sectors written
_TOTAL = const(6)  # bytes of the long request, or of that under way
_KEPT = const(7)  # nothing is to be done for a flush
_BEGUN = const(8)  # the request in `_chain` is under way

_SLOWLY = const(2)  # an answer of _serve(): a long request
_FEW = const(8)  # buffers: to pop() more of them takes so long that a guest of a higher priority may be due


class Blk(Device):
    """disk: as vmm/disks says. Queue 0: requests."""

    kind = 2
    sizes = (256,)
    own_words = 8

    def __init__(self, memory, refused, disk):
        self.own_features = SEG_MAX | _BLK_SIZE | BLK_FLUSH | (_RO if disk.read_only else 0)
        Device.__init__(self, memory, refused)
        self.disk = disk
        self._chain = new_chain()
        self._round = 0  # counts resets: what a disk ends from an earlier round is dropped
        self._heads = []  # of the chains that the disk has, but for that of _BEGUN
        self._again = ()  # those that a device which was saved had under way, until resume()
        self.words[_WRITABLE] = 0 if disk.read_only else 1
        self._serve = None
        if disk.quick:
            disk.ended = self._quick_ended
            self.words[_KEPT] = 1 if disk.kept else 0
            words, state, chain = [uctypes.addressof(a) for a in (self.words, self.queues[0].state, self._chain)]
            self._serve = bind(_serve, words, state, memory.table, chain, disk.quick)
            self.kicks[0] = bind(_kick, words, state, self._serve, self)

    @property
    def counts(self):
        """(reads, sectors read, writes, sectors written)."""
        return tuple(self.words[_COUNTS : _COUNTS + 4])

    @property
    def waiting(self):
        """Requests that the disk has."""
        return len(self._heads) + self.words[_BEGUN]

    def config(self):
        """capacity, size_max (not offered), seg_max, geometry (not offered), blk_size."""
        return struct.pack("<QIIIIQ", self.disk.sectors, 0, SEGMENTS, 0, SECTOR, 0)

    def stopped(self):
        self._round += 1
        if self.waiting:
            self.disk.cancel()
        self._heads = []
        self.words[_BEGUN] = 0
        self._again = ()

    def disable(self, n):
        self.stopped()
        Device.disable(self, n)

    def notified(self, n):
        self.go_on(self._serve() if self._serve else self.queues[0].pop(self._chain))

    def go_on(self, found):
        """What is left of a notification after the fast path has come to `found`."""
        chain = self._chain
        while found > NOTHING:
            if found == _SLOWLY:
                self._long(chain)
            elif not self.disk.words or not self._usual(chain):
                self._request(chain)
            found = self._serve() if self._serve else self.queues[0].pop(chain)
        if found == WRONG:
            self.broken(0)
        self.done(0)

    def _long(self, chain):
        """A read or write of the usual form that the quick disk moves in parts, between which other guests may run."""
        out, back = chain[OUT], chain[IN]
        write = 1 if out > 1 else 0
        count = out + back - 2
        total = self.words[_TOTAL]
        sector = int.from_bytes(uctypes.bytes_at(_address(chain, 0) + 8, 8), "little")
        at = uctypes.addressof(chain) + 4 * (BUFFERS + BUFFER)
        moved = 0
        while moved < total:
            some = self.disk.quick(sector, at, count, write, moved)
            if some <= 0:
                self._request(chain)
                return
            moved += some
        self._count(write, total)
        self._end(chain[HEAD], _address(chain, count + 1), _OK, 0 if write else total)

    def _quick_ended(self, ok):
        """What disk.quick() had left under way; those that the driver has added since come next."""
        chain, total = self._chain, self.words[_TOTAL]
        write = 1 if chain[OUT] > 1 else 0
        self.words[_BEGUN] = 0
        if ok and total:
            self._count(write, total)
        status = _address(chain, chain[OUT] + chain[IN] - 1)
        self._end(chain[HEAD], status, _OK if ok else _IOERR, 0 if write or not ok else total)
        self.kicks[0]()

    def _usual(self, chain):
        """A read or write of the usual form for a disk that takes the chain's words. False: it is for _request()."""
        total = usual(chain, self.words[_WRITABLE])
        if total < 0:
            return False
        write, total = total & 1, total >> 1
        sector = int.from_bytes(uctypes.bytes_at(_address(chain, 0) + 8, 8), "little")
        sectors = total // SECTOR
        if total % SECTOR or sector + sectors > self.disk.sectors:
            return False
        count = chain[OUT] + chain[IN] - 2
        status = _address(chain, count + 1)
        self._count(write, total)
        self._heads.append(chain[HEAD])
        done = bind(self._ended, self._round, chain[HEAD], status, 0 if write else total)
        self.disk.words(sector, chain[_DATA : _DATA + BUFFER * count], sectors, write, done)
        return True

    def _count(self, write, size):
        self.words[_COUNTS + 2 * write] += 1
        self.words[_COUNTS + 2 * write + 1] += size // SECTOR

    def _request(self, chain):
        """One that is not for the fast path."""
        head = chain[HEAD]
        readable, writable = buffers(chain)
        out, room = sum([size for _, size in readable]), sum([size for _, size in writable])
        if out < HEADER or room < 1:
            self.fail("block request without header or status")
            return
        kind, _, sector = struct.unpack("<IIQ", gather(readable, HEADER))
        status = writable[-1][0] + writable[-1][1] - 1
        writable = cut(writable, 0, room - 1)
        if kind == BLK_IN:
            self._transfer(head, sector, writable, room - 1, 0, status)
        elif kind == BLK_OUT and not self.disk.read_only:
            self._transfer(head, sector, cut(readable, HEADER, out - HEADER), out - HEADER, 1, status)
        elif kind == BLK_SYNC:
            self._heads.append(head)
            self.disk.flush(bind(self._ended, self._round, head, status, 0))
        elif kind == GET_ID:
            identity = (self.disk.identity + bytes(ID_BYTES))[:ID_BYTES]
            at = 0
            for hpa, size in writable:
                part = identity[at : at + size]
                if part:
                    uctypes.bytearray_at(hpa, len(part))[:] = part
                at += size
            self._end(head, status, _OK, min(at, ID_BYTES))
        else:
            self._end(head, status, _IOERR if kind == BLK_OUT else _UNSUPP, 0)

    def _transfer(self, head, sector, parts, size, write, status):
        if size % SECTOR or sector + size // SECTOR > self.disk.sectors:
            self._end(head, status, _IOERR, 0)
            return
        self._count(write, size)
        self._heads.append(head)
        self.disk.transfer(sector, parts, write, bind(self._ended, self._round, head, status, 0 if write else size))

    def _ended(self, turn, head, status, written, ok):
        """The disk has done it, within transfer() or later."""
        if turn != self._round:
            return  # the driver has reset the device since
        self._heads.remove(head)
        self._end(head, status, _OK if ok else _IOERR, written if ok else 0)
        self.done(0)

    def _end(self, head, status, code, written):
        uctypes.bytearray_at(status, 1)[0] = code
        self.queues[0].push(head, written + 1)

    # -- state as data

    def save(self):
        """Plain data. resume() submits requests that the disk already has again: the disk gets them twice."""
        saved = Device.save(self)
        saved["under_way"] = self._heads + ([self._chain[HEAD]] if self.words[_BEGUN] else [])
        return saved

    def load(self, saved):
        Device.load(self, saved)
        self._again = saved["under_way"]

    def resume(self):
        again, self._again = self._again, ()
        for head in again:
            if self.queues[0].again(head, self._chain) == CHAIN:
                self._request(self._chain)
        Device.resume(self)


def _address(chain, i):
    """The hpa of a chain's buffer."""
    at = BUFFERS + BUFFER * i
    return chain[at] | chain[at + 1] << 32


@micropython.viper
def usual(c: ptr32, writable: int) -> int:
    """Bytes of a read or write whose header, data and status have buffers of their own, times 2, plus 1 where it is a
    write; -1 for any other request."""
    out = int(c[OUT])
    back = int(c[IN])
    last = BUFFERS + BUFFER * (out + back - 1)
    if out == 0 or back == 0 or int(c[BUFFERS + 2]) != HEADER or int(c[last + 2]) != 1:
        return -1
    kind = int(ptr32(int(c[BUFFERS]) | int(c[BUFFERS + 1]) << 32)[0])
    if kind == BLK_IN:
        if out != 1 or back == 1:
            return -1
    elif kind != BLK_OUT or back != 1 or out == 1 or not writable:
        return -1
    i = _DATA
    total = 0
    while i < last:
        total += int(c[i + 2])
        i += BUFFER
    return total << 1 | kind


@micropython.viper
def _serve(words: int, queue: int, memory, chain: int, quick) -> int:
    """Requests in the usual buffers, as long as the disk is quick: NOTHING; WRONG; CHAIN, one for Blk._request;
    _SLOWLY, one for Blk._long. Between two of them guests of a higher priority may run."""
    w = ptr32(words)
    c = ptr32(chain)
    served = 0
    if w[_BEGUN]:
        return NOTHING
    while True:
        found = int(pop(queue, memory, chain))
        if found != CHAIN:
            return found
        out = int(c[OUT])
        back = int(c[IN])
        if served or out + back > _FEW:
            cpu.look()
        served = 1
        last = BUFFERS + BUFFER * (out + back - 1)
        if out == 0 or back == 0 or int(c[BUFFERS + 2]) != HEADER or int(c[last + 2]) != 1:
            return CHAIN
        header = ptr32(int(c[BUFFERS]) | int(c[BUFFERS + 1]) << 32)
        kind = int(header[0])
        count = out + back - 2
        if kind == BLK_IN:
            if out != 1 or count == 0:
                return CHAIN
        elif kind == BLK_OUT:
            if back != 1 or count == 0 or w[_WRITABLE] == 0:
                return CHAIN
        elif kind != BLK_SYNC or count:
            return CHAIN
        elif w[_KEPT]:
            status = ptr8(int(c[last]) | int(c[last + 1]) << 32)
            status[0] = _OK
            push(queue, int(c[HEAD]), 1)
            continue
        else:
            kind = FLUSH
        if header[3]:
            return CHAIN
        i = _DATA
        total = 0
        while i < last:
            total += int(c[i + 2])
            i += BUFFER
        moved = int(quick(int(header[2]), chain + 4 * _DATA, count, kind, 0))
        if moved < total:
            w[_TOTAL] = total
            if moved >= 0:
                return _SLOWLY
            if moved != UNDER_WAY:
                return CHAIN
            w[_BEGUN] = 1
            return NOTHING
        if total:
            w[_COUNTS + 2 * kind] += 1
            w[_COUNTS + 2 * kind + 1] += total >> 9
        status = ptr8(int(c[last]) | int(c[last + 1]) << 32)
        status[0] = _OK
        push(queue, int(c[HEAD]), total + 1 if kind == BLK_IN else 1)


@micropython.viper
def _kick(words: int, queue: int, serve, device):
    """Device.notify() of queue 0."""
    if ptr32(words)[STATUS] & (DRIVER_OK | NEEDS_RESET) != DRIVER_OK:
        return
    found = int(serve())
    if found != NOTHING:
        device.go_on(found)
    elif int(interrupts(queue)):
        device.signal(0)
