"""Debian systems from their own disks: logging in on the serial console, and commands there."""

LOGIN = rb" login: "
PROMPT = rb"root@\w+:\S+# "
BOOT = 1800  # seconds; 150 on an idle machine
MACHINE = 800  # MiB: the guest, what it changes on its disk, the monitor


def log_in(console):
    console.expect(LOGIN, BOOT)
    console.send("root\n")
    console.expect(PROMPT, 300)
    console.send("bind 'set enable-bracketed-paste off'; stty cols 300; TERM=dumb PS1='\\u@\\h:\\w# '\n")
    console.expect(PROMPT, 300)


def run(console, command):
    """What it prints. AssertionError where it fails."""
    console.send(command + "; echo status=$?\n")
    match = console.expect(rb"echo status=\$\?\n((?s:.*?))status=(\d+)\n", 600)
    console.expect(PROMPT, 300)
    assert match.group(2) == b"0", match.group(1).decode()
    return match.group(1).decode()
