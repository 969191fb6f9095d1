"""Debian systems from their own disks: starting one, logging in on the serial console (the fixture `console`), and
commands there."""

import needs
import vtx
from pcanel.monitor import Monitor

LOGIN = rb" login: "
PROMPT = rb"root@debian:\S+# "
BOOT = 1800  # seconds; 150 on an idle machine
MACHINE = 800  # MiB: the guest, what it changes on its disk, the monitor


def made(image, how):
    """The image, which is there. how: it is made."""
    if not image.is_file():
        needs.lacking(f"{image} is missing ({how})")
    return image


def start(file):
    return Monitor(engine=vtx.engine(), guests=[file], memory=MACHINE)


def log_in(console):
    console.expect(LOGIN, BOOT)
    console.send("root\n")
    settle(console)


def settle(console):
    """At a shell's first prompt: lines without colours, wide enough for the echo of a command. The echo of this one
    does not look like the prompt."""
    console.expect(rb"root@\S+:\S+# ", BOOT)
    console.send("bind 'set enable-bracketed-paste off'; stty cols 300; TERM=dumb PS1='root@''debian:\\w# '\n")
    console.expect(PROMPT, 300)


def run(console, command):
    """What it prints. AssertionError where it fails."""
    console.send(command + "; echo status=$?\n")
    match = console.expect(rb"echo status=\$\?\n((?s:.*?))status=(\d+)\n", 600)
    console.expect(PROMPT, 300)
    assert match.group(2) == b"0", match.group(1).decode()
    return match.group(1).decode()
