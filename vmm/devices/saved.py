"""State of devices as plain data: dicts of numbers, bytes, lists and other such dicts.

save() reads a device's state, load(state) gives it to a device of the same kind, which then behaves as the saved one
would have. Times are ticks of the guest's clock. load() sets the levels of the device's outputs, so the interrupt
controllers that these lead to are loaded after it. ValueError for data of another kind.
"""

from array import array


def save(device, names):
    """{name: value} of a device's attributes; buffers become bytes."""
    return {name: _plain(getattr(device, name)) for name in names}


def load(device, names, state):
    """Set the attributes that save() read. Buffers keep their addresses, which quick handlers have."""
    need(device, names, state)
    for name in names:
        old, value = getattr(device, name), state[name]
        if isinstance(old, (bytearray, array)):
            fill(device, name, old, value)
        else:
            setattr(device, name, list(value) if isinstance(value, (list, tuple)) else value)


def need(device, names, state):
    """ValueError where a saved state lacks one of these."""
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError("%s: the saved state has no %s" % (type(device).__name__, ", ".join(missing)))


def wait(timer, deadline):
    """Arm a timer for a saved deadline; 0: cancel it."""
    if deadline:
        timer.arm(deadline)
    else:
        timer.cancel()


def fill(device, name, buffer, data):
    """Put saved bytes into a device's buffer. ValueError where the sizes differ."""
    place = memoryview(buffer)
    size = len(bytes(place))
    if not isinstance(data, bytes) or len(data) != size:
        raise ValueError("%s: %s is not %d bytes" % (type(device).__name__, name, size))
    for i, value in enumerate(array(_typecode(buffer), data)):
        place[i] = value


def _typecode(buffer):
    if isinstance(buffer, bytearray):
        return "B"
    return {1: "B", 2: "H", 4: "I", 8: "q"}[len(bytes(buffer)) // len(buffer)]


def _plain(value):
    if isinstance(value, (bytearray, array)):
        return bytes(value)
    if isinstance(value, (list, tuple)):
        return list(value)
    return value
