"""A Linux guest's shell, as a person uses it: type a command, read what it prints."""

from contextlib import contextmanager

PROMPT = rb"linux:~# "
BOOT_TIMEOUT = 900  # seconds; a boot takes some 30 on an idle machine
TROUBLE = (
    "APIC error|lost interrupt|nobody cared|stalled CPU|rcu.*detected stall|soft lockup|unstable"
    "|WARNING: CPU|BUG:|Oops|Call Trace|Spurious|clocksource.*skew|segfault|general protection"
)


class Shell:
    """The shell on one console. run() returns what a command printed."""

    def __init__(self, monitor, name):
        self.monitor = monitor
        self.console = monitor.console(name)

    def wait(self):
        """Until the shell's first prompt; then lines are made wide, or the echo of a long command is wrapped."""
        self.console.expect(PROMPT, BOOT_TIMEOUT)
        self.console.send("stty cols 1000\n")
        self.console.expect(PROMPT, 240)
        return self

    def run(self, command, timeout=240):
        """Type a command; its output as str, without the echo."""
        self.console.send(command + "; echo status=$?\n")
        match = self.console.expect(rb"echo status=\$\?\n((?s:.*?))status=(\d+)\n", timeout)
        self.console.expect(PROMPT, timeout)
        output = match.group(1).decode(errors="replace")
        assert match.group(2) == b"0", f"{command}: status {match.group(2).decode()}\n{output}"
        return output

    def troubles(self):
        """Lines of dmesg that speak of broken interrupts, clocks or the kernel itself."""
        # All of it would take the console two seconds of a whole CPU.
        search = f"grep -iE '{TROUBLE}' /tmp/dmesg || test $? = 1"
        return self.run(f"dmesg > /tmp/dmesg && test -s /tmp/dmesg && {{ {search}; }}").splitlines()

    @contextmanager
    def unwatched(self):
        """For pauses that last as long as something on the host takes.

        Meanwhile the engine passes idle time, ten seconds of the guest's in a third of a second: on a busy machine the
        kernel's watchdogs would report a CPU that is stuck.
        """
        soft, stalls = "/proc/sys/kernel/soft_watchdog", "/sys/module/rcupdate/parameters/rcu_cpu_stall_suppress"
        self.run(f"echo 0 > {soft}; echo 1 > {stalls}")
        yield
        self.run(f"echo 1 > {soft}; echo 0 > {stalls}")
