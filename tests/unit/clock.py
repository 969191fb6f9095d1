"""The clock that devices are given, as a simulation: time moves when a test says so."""


class Timer:
    def __init__(self, callback):
        self.callback = callback
        self.deadline = 0

    def arm(self, deadline):
        assert 0 <= deadline < 1 << 62
        self.deadline = deadline if deadline else 1

    def cancel(self):
        self.deadline = 0


class Clock:
    """`hz` ticks a second from `ticks` on. `advance` runs the callbacks that are due on the way, each
    `late` ticks after its deadline."""

    def __init__(self, hz=100000000, ticks=0, late=0):
        self.hz = hz
        self.ticks = ticks
        self.late = late
        self.skew = 0  # of the guest's TSC
        self.timers = []
        self.fired = 0

    def now(self):
        return self.ticks

    def timer(self, callback):
        timer = Timer(callback)
        self.timers.append(timer)
        return timer

    def next_timer(self):
        found = None
        for timer in self.timers:
            if timer.deadline and (found is None or timer.deadline < found.deadline):
                found = timer
        return found

    def advance(self, ticks):
        self.until(self.ticks + ticks)

    def until(self, end):
        while True:
            timer = self.next_timer()
            if timer is None or timer.deadline + self.late > end:
                break
            self.ticks = max(self.ticks, timer.deadline + self.late)
            timer.deadline = 0
            self.fired += 1
            timer.callback(self.ticks)
        self.ticks = end


class Line:
    """An interrupt line that remembers its level and counts its rising edges."""

    def __init__(self):
        self.level = 0
        self.rises = 0

    def __call__(self, level):
        assert level in (0, 1)
        if level and not self.level:
            self.rises += 1
        self.level = level
        return 1
