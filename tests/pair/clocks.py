"""Time: Linux and the real-time guest, both at work, against the engine's own clock, the host's TSC."""

import re
import time

PIT_HZ = 1193182
ALLOWED = 0.001
CONSOLE = 0x3F8
LIMIT = 3600  # seconds; a busy one of the guests' takes Bochs twenty
WORK = (
    "while :; do dd if=/dev/zero of=/tmp/file bs=64k count=16 2> /dev/null; "
    "for i in 1 2 3 4 5; do /bin/true; done; dmesg > /tmp/messages; done"
)
# What the real-time guest sends meanwhile, `send` after `send`, is read there.
SETUP = "stty -F /dev/ttyS1 raw -echo crtscts 115200; cat /dev/ttyS1 > /dev/null & reads=$!"
# Each guest's clock is in a line that it prints: when the mark in it goes out, the engine's is looked at.
MARKS = {"linux": "^", "rtos": ","}
STAMPS = f"""
import cpu
stamps = {{}}
watching = []
def watch(vm, mark):
    @vm.on('io', port={CONSOLE:#x}, write=True)
    def stamp(vcpu):
        if vcpu.rax & 0xFF == mark:
            stamps[vm.name] = cpu.rdtsc()
    watching.append(stamp)
for name, mark in {MARKS!r}.items():
    watch(vms[name], ord(mark))
"""
# No fork in between.
READ = f"read first rest < /proc/uptime; echo $first{MARKS['linux']}; read last rest < /proc/uptime; echo $last"
READINGS = 10  # of Linux's clock at most, until
EXACT = 3  # of them are
RESOLUTION = 0.01  # of /proc/uptime, seconds
PRINTING = 0.01  # from the look at the real-time guest's clock to the mark, seconds


class Clocks:
    """A clock is read as (at least, at most, the engine's at least, at most), in seconds."""

    def __init__(self, monitor, rtos, linux, tick_hz):
        """Both guests have their prompts; the real-time guest's tick is `tick_hz`."""
        self.monitor = monitor
        self.rtos = rtos
        self.linux = linux
        self.tick = round(PIT_HZ / tick_hz) / PIT_HZ  # seconds
        self.hz = monitor.eval("__import__('cpu').tsc_hz")
        monitor.exec(STAMPS)

    def stamp(self, name):
        return self.monitor.eval(f"stamps[{name!r}]") / self.hz

    def of_linux(self):
        """Of several readings the one in which least time went by, and then that whose mark went out soonest after it:
        Linux has more to do than that, and its console more to print."""
        readings = []
        exact = 0
        for _ in range(READINGS):
            first, last = map(float, self.linux.run(READ, LIMIT).split(MARKS["linux"]))
            readings.append((first, last + RESOLUTION, self.stamp("linux"), self.stamp("linux")))
            exact += last <= first + RESOLUTION
            if exact == EXACT:
                break
        return min(readings, key=lambda reading: (round(reading[1] - reading[0], 2), reading[2] - reading[0]))

    def of_rtos(self):
        ticks = int(re.search(r"^(\d+) ticks,", self.rtos.run("tick"), re.M)[1])
        return ticks * self.tick, (ticks + 1) * self.tick, self.stamp("rtos") - PRINTING, self.stamp("rtos")

    def used(self):
        """Seconds of the CPU that each guest has used, with what the monitor did for it; the engine's clock."""
        ticks = self.monitor.eval(
            "[sum(vms[name].ticks()) for name in ('linux', 'rtos')] + [__import__('cpu').rdtsc()]"
        )
        return [part / self.hz for part in ticks]

    def lost(self):
        """Ticks that the real-time guest has missed; None while it still measures."""
        line = re.search(r"(-?\d+) lost(; measuring)?", self.rtos.run("stats"))
        return None if line[2] else int(line[1])

    def agree(self, seconds, visible):
        """Asserts that both clocks agree with the engine's over so many seconds of work."""
        deadline = time.monotonic() + LIMIT
        while self.lost() is None:
            assert time.monotonic() < deadline, "the real-time guest still measures"
            self.rtos.run("sleep 1")
        self.linux.run(f"{SETUP}; sh -c '{WORK}' & work=$!")
        begin = self.of_linux(), self.of_rtos()
        before = used = self.used()
        while used[2] < before[2] + seconds:
            self.rtos.run("send 1024")
            used = self.used()
        end = self.of_linux(), self.of_rtos()
        self.linux.run("kill $work $reads")
        linux, rtos, passed = (after - had for after, had in zip(used, before, strict=True))
        print(f"linux {linux:.2f} s, rtos {rtos:.2f} s of {passed:.2f} s")
        assert linux > passed / 6, "Linux was not busy"
        assert rtos > passed / 10, "the real-time guest was not busy"
        for name, at_begin, at_end in zip(("linux", "rtos"), begin, end, strict=True):
            assert disagreement(name, at_begin, at_end, visible) <= ALLOWED
        assert self.lost() == 0
        assert self.linux.troubles() == []

    def close(self):
        """No policy stays."""
        self.monitor.exec("for stamp in watching: stamp.detach()")


def disagreement(name, begin, end, visible):
    """By what part of the time that passed a clock is off at least, whatever happened while it was read.

    visible: an error of so much has to be more than ALLOWED then, too.
    """
    least, most = end[0] - begin[1], end[1] - begin[0]
    engine_least, engine_most = end[2] - begin[3], end[3] - begin[2]
    print(f"{name}: {least:.3f} to {most:.3f} s, engine {engine_least:.3f} to {engine_most:.3f} s")
    uncertain = (most - least + engine_most - engine_least) / engine_least
    assert uncertain < visible - ALLOWED, "not read exactly enough"
    return max(least - engine_most, engine_least - most, 0) / engine_least
