"""Cables between small guests: a linked COM1 is no console, whoever's description lays the cable."""

import pytest
from bench import DATA
from pcanel.vmm_import import importable

with importable():
    from vmm.devices.pc_ports import COM1, COM2

# Counts what comes at the port (dx, not echoed) in the first word, and keeps the last of it in the second.
LISTEN = f"""
again:
    mov dx, {{0}} + 5
    in al, dx
    test al, 1
    jz again
    mov dx, {{0}}
    in al, dx
    movzx eax, al
    mov [{DATA + 8:#x}], rax
    inc qword ptr [{DATA:#x}]
    jmp again
"""
# Sends the word at DATA whenever there is one.
SEND = f"""
again:
    mov rax, [{DATA:#x}]
    test rax, rax
    jz again
    mov dx, {{0}}
    out dx, al
    mov qword ptr [{DATA:#x}], 0
    jmp again
"""


@pytest.fixture(autouse=True)
def nothing_left(bench, guest):
    look = "(monitor.pages.available, monitor.uarts._free, monitor.links.cables, len(monitor._vpids))"
    before = bench.eval(look)
    yield
    bench.exec("for vm in list(vms.values()): vm.destroy()")
    assert bench.eval(look) == before


def cable(uart, to):
    return [{"uart": uart, "to": to}]


def type_at(bench, line, text):
    """A person at the host's COM2 or COM3; guests run until it has been read or would have been."""
    bench.monitor.console(line).send(text)
    bench.run(300)


def send(sender, byte):
    sender.exec(f"vm.memory.write_u64({DATA:#x}, {byte})")
    sender.until(f"not vm.memory.read_u64({DATA:#x})")


def host(guest):
    return guest.eval("(vm.uart, vm.console.host is not None)")


def test_a_linked_com1_gets_no_host_uart_and_no_character_from_one(guest, bench):
    a = guest(LISTEN.format(COM1), console=None, links=cable("com1", "far:com2"))
    assert host(a) == (None, False)
    b = guest(LISTEN.format(COM1), console=None)
    assert host(b) == (1, True)  # it is the first to take one
    a.go()
    b.go()
    type_at(bench, "com2", "x")
    type_at(bench, "com3", "x")
    assert (a.word(), b.word()) == (0, 1)
    assert a.refused("vm.console()") == (f"RuntimeError: guest {a.name} has no console: its COM1 is linked to far:com2")
    assert bench.alive()


def test_a_cable_that_is_laid_later_and_taken_away_again(guest, bench):
    a = guest(LISTEN.format(COM1), console="com2")
    a.go()
    type_at(bench, "com2", "x")
    assert (a.word(), host(a)) == (1, (1, True))
    b = guest(SEND.format(COM2), links=cable("com2", f"{a.name}:com1"))
    assert host(a) == (None, False)
    type_at(bench, "com2", "yy")
    assert a.word() == 1
    assert "its COM1 is linked to" in a.refused("vm.attach()")
    b.go()
    send(b, 0x41)
    a.until(f"vm.memory.read_u64({DATA:#x}) == 2")
    assert a.word(1) == 0x41
    c = guest(LISTEN.format(COM1), console="com3")  # the line that is free now is another's to ask for
    c.destroy()
    b.destroy()
    assert host(a) == (1, True)
    before = a.word()
    type_at(bench, "com2", "z")
    assert a.word() > before and a.word(1) == ord("z")


def test_a_line_that_is_another_guests_by_then_is_not_taken_back(guest, bench):
    a = guest("mov dx, 0x3f8; mov al, 0x21; hlt; out dx, al; hlt", console="com2")
    b = guest("hlt", links=cable("com3", f"{a.name}:com1"))
    c = guest("hlt", console="com2")
    b.destroy()
    assert (host(a), host(c)) == ((None, False), (1, True))
    a.halted()
    a.exec("vcpu.scheduled.state = 'running'")
    a.halted()
    assert a.eval("vm.console.tail()") == "!"  # the prompt is its console


def test_both_guests_may_have_their_com1_linked(guest):
    a = guest(LISTEN.format(COM1), console=None)
    b = guest(SEND.format(COM1), console=None, links=cable("com1", f"{a.name}:com1"))
    assert host(a) == host(b) == (None, False)
    a.go()
    b.go()
    send(b, 7)
    a.until(f"vm.memory.read_u64({DATA:#x}) == 1")
    assert a.word(1) == 7


def test_a_refused_guest_leaves_no_cable(guest, bench):
    a = guest("hlt", links=cable("com2", "no:com2"))
    config = {"name": "no", "memory": 1 << 20, "protocol": "flat", "kernel": "k", "address": 0x7C00, "console": "com2"}
    config["links"] = [*cable("com2", f"{a.name}:com2"), *cable("com3", f"{a.name}:com2")]
    words = f"ValueError: guest no: links[1]: com3 to {a.name}:com2: one of them has a link already"
    assert bench.refused(f"monitor.create({config!r}, {{'k': b'1'}})") == words
    a.destroy()
    assert bench.eval("monitor.links.cables") == []


def test_a_guest_whose_console_is_taken_leaves_no_cable(guest, bench):
    guest("hlt", console="com2")
    config = {"name": "no", "memory": 1 << 20, "protocol": "flat", "kernel": "k", "address": 0x7C00, "console": "com2"}
    config["links"] = cable("com2", "far:com2")
    words = "ValueError: guest no: console: com2 has a guest already"
    assert bench.refused(f"monitor.create({config!r}, {{'k': b'1'}})") == words
    assert bench.eval("monitor.links.cables") == []


def test_a_linked_com1_cannot_ask_for_a_line(guest, bench):
    config = {"name": "no", "memory": 1 << 20, "protocol": "flat", "kernel": "k", "address": 0x7C00, "console": "com2"}
    config["links"] = cable("com1", "far:com2")
    words = "ValueError: guest no: console: COM1 is linked to far:com2 and no console"
    assert bench.refused(f"monitor.create({config!r}, {{'k': b'1'}})") == words
    assert bench.eval("(list(vms), len(monitor.links.cables))") == ([], 0)
    b = guest(LISTEN.format(COM1), console="com2")
    assert host(b) == (1, True)
