"""The SCSI commands of a CD drive with a disc in it. Its controller is vmm/devices/virtio/scsi.py.

The disc is one data track of 2,048-byte blocks and cannot be ejected. Source: SCSI Primary Commands (SPC-3),
Multi-Media Commands (MMC-3).
"""

import struct

from micropython import const

BLOCK = const(2048)
SECTORS = const(4)  # of 512 bytes, in a block

GOOD = const(0)
CHECK_CONDITION = const(2)

_TEST_UNIT_READY = const(0x00)
_REQUEST_SENSE = const(0x03)
_INQUIRY = const(0x12)
_MODE_SENSE_6 = const(0x1A)
_START_STOP = const(0x1B)
_PREVENT = const(0x1E)
_READ_CAPACITY = const(0x25)
_READ_10 = const(0x28)
_READ_TOC = const(0x43)
_GET_CONFIGURATION = const(0x46)
_GET_EVENT = const(0x4A)
_READ_DISC_INFORMATION = const(0x51)
_MODE_SENSE_10 = const(0x5A)
_REPORT_LUNS = const(0xA0)
_READ_12 = const(0xA8)

# Sense key, additional sense code
_NO_SENSE = (0, 0)
_MEDIUM_ERROR = (3, 0x11)  # unrecovered read error
_NO_COMMAND = (5, 0x20)
_OUT_OF_RANGE = (5, 0x21)
_NO_FIELD = (5, 0x24)

_CD_ROM = const(5)
_PROFILE = const(8)  # CD-ROM
_LEAD_OUT = const(0xAA)
_MSF = const(2)  # in byte 1 of READ TOC
_CAPABILITIES = const(0x2A)


class ScsiCdrom:
    """disk: a disk by the interface of vmm/disks, read only. identity: its serial number, bytes."""

    def __init__(self, disk, identity):
        self.disk = disk
        self.blocks = disk.sectors // SECTORS
        self.identity = identity
        self._sense = _NO_SENSE

    def reset(self):
        self._sense = _NO_SENSE

    def save(self):
        """Plain data."""
        return {"sense": list(self._sense)}

    def load(self, saved):
        self._sense = tuple(saved["sense"])

    @property
    def sense(self):
        """Fixed-format sense data of the last command, 18 bytes."""
        return struct.pack(">BBBIBIBB4x", 0x70, 0, self._sense[0], 0, 10, 0, self._sense[1], 0)

    def command(self, cdb):
        """(status, data), the drive's answer; or (None, (first sector, sectors)) for a read from the disk."""
        handler = _HANDLERS.get(cdb[0])
        if handler is None:
            return self.fail(_NO_COMMAND)
        if cdb[0] != _REQUEST_SENSE:
            self._sense = _NO_SENSE
        return handler(self, cdb)

    def fail(self, sense=_MEDIUM_ERROR):
        """The answer of a command that failed. sense: (sense key, additional sense code)."""
        self._sense = sense
        return CHECK_CONDITION, b""

    def _good(self, cdb):
        return GOOD, b""

    def _request_sense(self, cdb):
        data = self.sense
        self._sense = _NO_SENSE
        return GOOD, data[: cdb[4]]

    def _inquiry(self, cdb):
        room = cdb[3] << 8 | cdb[4]
        if not cdb[1] & 1:
            if cdb[2]:
                return self.fail(_NO_FIELD)
            data = bytes((_CD_ROM, 0x80, 5, 2, 31, 0, 0, 0)) + b"PCANEL  CD-ROM          1.0 "
            return GOOD, data[:room]
        if cdb[2] == 0x00:
            page = b"\x00\x80\x83"
        elif cdb[2] == 0x80:
            page = self.identity
        elif cdb[2] == 0x83:
            page = struct.pack(">BBBB", 2, 0, 0, len(self.identity)) + self.identity
        else:
            return self.fail(_NO_FIELD)
        return GOOD, (struct.pack(">BBH", _CD_ROM, cdb[2], len(page)) + page)[:room]

    def _mode_sense(self, cdb):
        """Only the capabilities page is there."""
        long = cdb[0] == _MODE_SENSE_10
        room = cdb[7] << 8 | cdb[8] if long else cdb[4]
        page = cdb[2] & 0x3F
        if page not in (_CAPABILITIES, 0x3F) or cdb[2] >> 6 == 3:  # saved values: there are none
            return self.fail(_NO_FIELD)
        # No audio, no writing, no tray, lock or eject: all capabilities are 0.
        body = struct.pack(">BB18x", _CAPABILITIES, 18) if cdb[2] >> 6 != 1 else bytes((_CAPABILITIES, 18)) + bytes(18)
        head = struct.pack(">HB5x", len(body) + 6, 0) if long else struct.pack(">B3x", len(body) + 3)
        return GOOD, (head + body)[:room]

    def _read_capacity(self, cdb):
        return GOOD, struct.pack(">II", max(self.blocks - 1, 0), BLOCK)

    def _read(self, cdb):
        first = int.from_bytes(cdb[2:6], "big")
        count = int.from_bytes(cdb[6:10], "big") if cdb[0] == _READ_12 else cdb[7] << 8 | cdb[8]
        if first + count > self.blocks:
            return self.fail(_OUT_OF_RANGE)
        return None, (first * SECTORS, count * SECTORS)

    def _read_toc(self, cdb):
        form = cdb[2] & 0xF or cdb[9] >> 6
        room = cdb[7] << 8 | cdb[8]
        if form == 1:  # one session, which begins with track 1
            data = struct.pack(">HBBBBBB", 10, 1, 1, 0, 0x14, 1, 0) + self._place(cdb, 0)
        elif form == 0:
            start = cdb[6]
            if start > 1 and start != _LEAD_OUT:
                return self.fail(_NO_FIELD)
            tracks = b""
            if start <= 1:
                tracks += bytes((0, 0x14, 1, 0)) + self._place(cdb, 0)
            tracks += bytes((0, 0x16, _LEAD_OUT, 0)) + self._place(cdb, self.blocks)
            data = struct.pack(">HBB", len(tracks) + 2, 1, 1) + tracks
        else:
            return self.fail(_NO_FIELD)
        return GOOD, data[:room]

    @staticmethod
    def _place(cdb, block):
        """A block's address as READ TOC returns it: a number, or minutes, seconds and frames."""
        if not cdb[1] & _MSF:
            return struct.pack(">I", block)
        block += 150
        return bytes((0, block // 4500 & 0xFF, block // 75 % 60, block % 75))

    def _get_configuration(self, cdb):
        """Profile list, core, removable medium."""
        features = struct.pack(">HBB", 0, 3, 4) + struct.pack(">HBB", _PROFILE, 1, 0)
        features += struct.pack(">HBBI", 1, 3, 4, 1) + struct.pack(">HBBI", 3, 3, 4, 0)
        return GOOD, (struct.pack(">IHH", len(features) + 4, 0, _PROFILE) + features)[: cdb[7] << 8 | cdb[8]]

    def _get_event(self, cdb):
        """Media events: none; the medium is present."""
        if not cdb[1] & 1:
            return self.fail(_NO_FIELD)
        room = cdb[7] << 8 | cdb[8]
        if not cdb[4] & 0x10:
            return GOOD, struct.pack(">HBB", 2, 0x80, 0x10)[:room]
        return GOOD, struct.pack(">HBBBBBB", 6, 4, 0x10, 0, 2, 0, 0)[:room]

    def _read_disc_information(self, cdb):
        data = struct.pack(">H", 32) + bytes((0x0E, 1, 1, 1, 1, 0x20)) + bytes(26)
        return GOOD, data[: cdb[7] << 8 | cdb[8]]

    def _report_luns(self, cdb):
        return GOOD, (struct.pack(">II", 8, 0) + bytes(8))[: int.from_bytes(cdb[6:10], "big")]


_HANDLERS = {
    _TEST_UNIT_READY: ScsiCdrom._good, _START_STOP: ScsiCdrom._good, _PREVENT: ScsiCdrom._good,
    _REQUEST_SENSE: ScsiCdrom._request_sense, _INQUIRY: ScsiCdrom._inquiry,
    _MODE_SENSE_6: ScsiCdrom._mode_sense, _MODE_SENSE_10: ScsiCdrom._mode_sense,
    _READ_CAPACITY: ScsiCdrom._read_capacity, _READ_10: ScsiCdrom._read, _READ_12: ScsiCdrom._read,
    _READ_TOC: ScsiCdrom._read_toc, _GET_CONFIGURATION: ScsiCdrom._get_configuration,
    _GET_EVENT: ScsiCdrom._get_event, _READ_DISC_INFORMATION: ScsiCdrom._read_disc_information,
    _REPORT_LUNS: ScsiCdrom._report_luns,
}  # fmt: skip
