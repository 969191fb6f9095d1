"""A SCSI host with one target by virtio, for a CD drive. Source: virtio 1.2, "SCSI Host Device".

Target 0, LUN 0 is the drive; no other exists. A request is a header with the command; the answer is a response with the
data behind it. Commands that send data are refused. Limits: no hot plugging, so the event queue stays unused; task
management always succeeds without an effect.
"""

import struct

import uctypes
from micropython import const
from vmx import bind

from vmm.devices.scsi_cdrom import CHECK_CONDITION, GOOD
from vmm.devices.virtio.device import Device
from vmm.devices.virtio.queue import CHAIN, HEAD, SEGMENTS, WRONG, buffers, cut, gather, new_chain
from vmm.disks import SECTOR

_CONTROL = const(0)
_REQUESTS = const(2)

_CDB = const(32)
_SENSE = const(96)
_HEADER = const(19)  # bytes in front of the command
_RESPONSE = const(12)  # bytes in front of sense data

_OK = const(0)
_OVERRUN = const(1)
_BAD_TARGET = const(3)
_INCORRECT_LUN = const(12)

_TASK_MANAGEMENT = const(0)
_SECTORS_MOST = const(0xFFFF)


class Scsi(Device):
    """target: vmm.devices.scsi_cdrom.ScsiCdrom. Queues: control, events, requests."""

    kind = 8
    sizes = (16, 16, 128)

    def __init__(self, memory, refused, target):
        Device.__init__(self, memory, refused)
        self.target = target
        self._chain = new_chain()
        self._round = 0  # counts resets
        self._heads = []  # of the requests under way at the disk
        self._again = ()  # after load(), until resume(): heads of the requests that were under way

    def config(self):
        """num_queues, seg_max, max_sectors, cmd_per_lun, event_info_size, sense_size, cdb_size, max_channel,
        max_target, max_lun."""
        return struct.pack("<IIIIIIIHHI", 1, SEGMENTS, _SECTORS_MOST, 64, 16, _SENSE, _CDB, 0, 0, 0)

    def stopped(self):
        self._round += 1
        if self._heads:
            self.target.disk.cancel()
        self._heads = []
        self._again = ()
        self.target.reset()

    def disable(self, n):
        if n == _REQUESTS:
            self.stopped()
        Device.disable(self, n)

    def notified(self, n):
        if n not in (_CONTROL, _REQUESTS):
            return
        queue, chain = self.queues[n], self._chain
        found = queue.pop(chain)
        while found == CHAIN:
            if n == _CONTROL:
                self._control(chain)
            else:
                self._request(chain)
            found = queue.pop(chain)
        if found == WRONG:
            self.broken(n)
        self.done(n)

    def _control(self, chain):
        """Task management, and asynchronous notification, for which no event is supported."""
        readable, writable = buffers(chain)
        (kind,) = struct.unpack("<I", (gather(readable, 4) + bytes(4))[:4])
        answer = bytes((_OK,)) if kind == _TASK_MANAGEMENT else struct.pack("<IB", 0, _OK)
        self.queues[_CONTROL].push(chain[HEAD], _scatter(writable, answer))

    def _request(self, chain):
        head = chain[HEAD]
        readable, writable = buffers(chain)
        room = sum([size for _, size in writable]) - _RESPONSE - _SENSE
        request = gather(readable, _HEADER + _CDB)[: _HEADER + _CDB]
        if len(request) < _HEADER + _CDB or room < 0:
            self.fail("SCSI request without command or response")
            return
        lun = request[:8]
        if lun[0] != 1 or lun[1]:
            self._end(head, writable, _BAD_TARGET, GOOD, room, b"")
            return
        if (lun[2] & 0x3F) << 8 | lun[3]:
            self._end(head, writable, _INCORRECT_LUN, GOOD, room, b"")
            return
        status, data = self.target.command(request[_HEADER:])
        if status is not None:
            data = data[:room]
            self._end(head, writable, _OK, status, room - len(data), data)
            return
        first, count = data
        if count * SECTOR > room:
            self._end(head, writable, _OVERRUN, GOOD, room, b"")
        elif not count:
            self._end(head, writable, _OK, GOOD, room, b"")
        else:
            parts = cut(writable, _RESPONSE + _SENSE, count * SECTOR)
            self._heads.append(head)
            done = bind(self._read, self._round, head, writable, room, count * SECTOR)
            self.target.disk.transfer(first, parts, 0, done)

    def _read(self, turn, head, writable, room, size, ok):
        """The disk has ended a read, within transfer() or later."""
        if turn != self._round:
            return  # the driver has reset the device since
        self._heads.remove(head)
        if ok:
            self._end(head, writable, _OK, GOOD, room - size, b"", size)
        else:
            self._end(head, writable, _OK, self.target.fail()[0], room, b"")
        self.done(_REQUESTS)

    def _end(self, head, writable, response, status, left, data, moved=0):
        """Return the request. left: bytes of its buffers that stay as they are; moved: bytes that the disk has
        written."""
        sense = self.target.sense if status == CHECK_CONDITION else b""
        answer = struct.pack("<IIHBB", len(sense), left, 0, status, response) + sense + bytes(_SENSE - len(sense))
        written = _scatter(writable, answer + data)
        self.queues[_REQUESTS].push(head, written + moved)

    # -- state as data

    def save(self):
        """Plain data. resume() submits the requests under way again."""
        saved = Device.save(self)
        saved["under_way"] = list(self._heads)
        saved["target"] = self.target.save()
        return saved

    def load(self, saved):
        Device.load(self, saved)
        self.target.load(saved["target"])
        self._again = saved["under_way"]

    def resume(self):
        again, self._again = self._again, ()
        for head in again:
            if self.queues[_REQUESTS].again(head, self._chain) == CHAIN:
                self._request(self._chain)
        Device.resume(self)


def _scatter(parts, data):
    """Copy `data` into [(hpa, bytes), ...]. Returns the number of bytes for which there was room."""
    at = 0
    for hpa, size in parts:
        piece = data[at : at + size]
        if not piece:
            break
        uctypes.bytearray_at(hpa, len(piece))[:] = piece
        at += len(piece)
    return at
