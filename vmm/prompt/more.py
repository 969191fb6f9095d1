"""more(): a long text a page at a time, at a person's terminal."""

import sys

import cpu

from vmm.prompt.show import shown

_KEYS = "-- Space: a page, Enter: a line, q: end --"


def more(value):
    """Print a value as the prompt shows it, or a text; a page at a time unless a program reads the prompt."""
    text = value if isinstance(value, str) else shown(value)
    text = repr(value) if text is None else text
    rows, _, person = cpu.terminal()
    lines = text.split("\n")
    if not person:
        print(text)
        return
    page = max(rows - 1, 1)
    shown_now = 0
    for number, line in enumerate(lines):
        if shown_now == page:
            key = _ask()
            if key in "qQ\x03":
                return
            shown_now = page - 1 if key in "\r\n" else 0
        print(line)
        shown_now += 1


def _ask():
    sys.stdout.write(_KEYS)
    key = sys.stdin.read(1)
    sys.stdout.write("\r\x1b[K")
    return key
