"""A guest's mouse, moved by hand at the prompt or by a viewer (vmm/devices/ps2_mouse.py)."""

BUTTONS = {"left": 1, "right": 2, "middle": 4, "side": 8, "extra": 16}


def _mask(names):
    mask = 0
    for name in names:
        if name not in BUTTONS:
            raise ValueError("there is no button %r; there are %s" % (name, ", ".join(sorted(BUTTONS))))
        mask |= BUTTONS[name]
    return mask


class Pointer:
    """Of one guest. mouse: its vmm.devices.ps2_mouse.Ps2Mouse.

    For users: move, press, release, click, wheel. MemoryError where too much waits: the guest takes none.
    """

    def __init__(self, mouse):
        self._mouse = mouse

    def _event(self, dx, dy, dz, buttons):
        if not self._mouse.event(dx, dy, dz, buttons):
            raise MemoryError("too many movements wait; the guest takes none")

    def move(self, dx, dy):
        """Move it to the right and down; how far the guest's pointer goes is the guest's."""
        self._event(dx, dy, 0, self._mouse.buttons)

    def wheel(self, steps):
        """Turn its wheel towards the user, or away where `steps` is negative."""
        self._event(0, 0, steps, self._mouse.buttons)

    def press(self, *names):
        """Hold buttons down: press("left"). ValueError."""
        self._event(0, 0, 0, self._mouse.buttons | _mask(names))

    def release(self, *names):
        """Let go of buttons. ValueError."""
        self._event(0, 0, 0, self._mouse.buttons & ~_mask(names))

    def click(self, name="left"):
        """Press and release a button. ValueError."""
        self.press(name)
        self.release(name)
