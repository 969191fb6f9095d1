"""Validity of the disks in a guest's description. The host checks guest files by the same code.

An error is a ValueError of one line that begins with the entry, and with the key if one of its keys is wrong.
"""

MODES = ("rw", "ro", "scratch")
TRANSPORTS = ("virtio-pci", "virtio-mmio")
HOST = "host:"  # prefix of a model or serial number: the image is a disk of the host
_LEAST = 64 << 10
LIMIT = 256 << 20  # default limit of "scratch", in bytes of memory
_KEYS = ("image", "mode", "transport", "limit")


def cds(entries):
    """Check [{"image": "guest/cd0"}, ...]."""
    disks(entries, _KEYS[:1])


def disks(entries, keys=_KEYS):
    """Check [{"image": "guest/disk0", "mode": "scratch", "transport": "virtio-pci"}, ...]; only image is required."""
    for number, disk in enumerate(entries):
        if not isinstance(disk, dict):
            raise ValueError("[%d]: must be a table with image, not %r" % (number, disk))
        for key in disk:
            if key not in keys:
                raise ValueError("[%d].%s: unknown key; there are %s" % (number, key, ", ".join(keys)))
        image = disk.get("image")
        if not isinstance(image, str) or not image:
            raise ValueError("[%d].image: must be an image, not %r" % (number, image))
        limit = disk.get("limit")
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < _LEAST):
            raise ValueError("[%d].limit: must be bytes, 64 KiB at least, not %r" % (number, limit))
        for key, choices in (("mode", MODES), ("transport", TRANSPORTS)):
            value = disk.get(key)
            if value is not None and value not in choices:
                raise ValueError("[%d].%s: must be one of %s, not %r" % (number, key, ", ".join(choices), value))
