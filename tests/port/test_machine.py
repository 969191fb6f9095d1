"""Memory, boot options, the cpu and multiboot modules, serial ports."""

import pytest
from pcanel.repl import RemoteError

MIB = 1 << 20


def test_heap_option(fresh):
    machine = fresh(cmdline="heap=48M disk=2M exec=4M")
    printed = machine.exec(
        "import gc, os, multiboot\n"
        "print(gc.mem_free() + gc.mem_alloc(), multiboot.heap()[1], os.statvfs('/')[1] * os.statvfs('/')[2])"
    )
    heap, block, disk = map(int, printed.split())
    assert 46 * MIB < heap <= 48 * MIB
    assert block == 54 * MIB
    assert MIB < disk <= 2 * MIB
    assert "heap=48M" in machine.exec("print(multiboot.cmdline())")


def test_what_is_left_at_the_end_of_the_heap(fresh):
    """At least that much is free, in one piece."""
    machine = fresh(cmdline="heap=8M")
    printed = machine.exec(
        "import cpu, gc\n"
        "gc.collect()\n"
        "heap, before, _ = cpu.heap()\n"
        "print(heap, before, gc.mem_free())\n"
        "taken = bytearray(before - 4096)\n"
        "print(*cpu.heap()[1:])\n"
        "del taken\n"
        "gc.collect()\n"
        "print(cpu.heap()[1])"
    )
    heap, before, free, full, since, after = map(int, printed.split())
    assert 7 * MIB < heap < 8 * MIB
    assert free // 2 < before <= free
    assert full <= 4096
    assert before - 4096 <= since < before + MIB
    assert after > before - MIB


def test_absurd_heap_says_so(fresh):
    machine = fresh(booted=False, cmdline="heap=9999M")
    machine.console("repl").expect("PANIC: too little memory below 4 GiB for heap=", 60)


def test_all_memory_can_be_used(fresh):
    machine = fresh(memory=5120)
    printed = machine.exec(
        "import machine, multiboot\n"
        "total = 0\n"
        "for base, length, type in multiboot.memory():\n"
        "  if type == 1:\n"
        "    total += length\n"
        "    last = base + length - 4\n"
        "    if base >= 0x100000000:\n"
        "      machine.mem32[last] = 0x12345678\n"
        "      print(machine.mem32[last] == 0x12345678)\n"
        "print(total >> 20)"
    )
    seen, total = printed.split()
    assert seen == "True"
    assert 5100 <= int(total) <= 5120


def test_port_memory_is_apart(monitor):
    ranges = monitor.eval("[__import__('multiboot').image(), __import__('multiboot').heap()]")
    (image, image_size), (heap, heap_size) = ranges
    assert image == 0x100000
    assert image + image_size <= heap
    assert heap_size >= 16 * MIB


def test_modules(fresh):
    machine = fresh(modules={"blob/one": b"abc", "file:/x": b"y" * 5000})
    printed = machine.exec(
        "import multiboot, uctypes\nfor string, hpa, size in multiboot.modules():\n"
        "  print(string.split()[0], size, uctypes.bytes_at(hpa, 3))"
    )
    assert "blob/one 3 b'abc'" in printed
    assert "file:/x 5000 b'yyy'" in printed


def test_cpu_module(monitor):
    assert monitor.eval("__import__('cpu').cpuid(0)[0]") >= 1
    assert monitor.eval("__import__('cpu').rdmsr(0xC0000080)") & 0x500 == 0x500
    assert monitor.eval("__import__('cpu').cr(0)") & 0x80010001 == 0x80010001
    assert monitor.eval("__import__('cpu').cr(4)") & 0x620 == 0x620
    assert 10**8 < monitor.eval("__import__('cpu').tsc_hz") < 10**11
    assert monitor.exec("import cpu\ncpu.outb(0x3FF, 0x5A)\nprint(cpu.inb(0x3FF))").strip() == "90"
    with pytest.raises(RemoteError, match="ValueError: no such control register"):
        monitor.exec("cpu.cr(1)")


def test_counters(monitor):
    before = monitor.eval("__import__('cpu').counters()")
    assert before["unclaimed_interrupts"] == before["com1_overruns"] == 0
    monitor.exec("@micropython.viper\ndef grows():\n  pass")
    assert monitor.eval("__import__('cpu').counters()")["exec_used"] > before["exec_used"]


def test_wall_clock(monitor):
    import time

    assert abs(monitor.eval("__import__('time').time()") - time.time()) < 30


def test_uarts(monitor):
    com2 = monitor.console("com2")
    com2.send("to the monitor")
    printed = monitor.exec(
        "import machine, time\nu = machine.UART(1)\nwhile u.any() < 14: time.sleep_ms(10)\n"
        "print(u.read(6), u.readchar(), u.read(), u.readchar(), u.txroom())\n"
        "u.write(b'from the monitor')\nprint(u.writechar(33))\nu.flush()"
    )
    assert printed.split("\n")[0] == "b'to the' 32 b'monitor' -1 8192"
    com2.expect("from the monitor!", 10)
    with pytest.raises(RemoteError, match="ValueError"):
        monitor.exec("machine.UART(0)")


def test_uart_loses_nothing(monitor):
    """As much as the ring buffer holds, while Python computes."""
    com3 = monitor.console("com3")
    data = bytes(33 + i % 90 for i in range(8000))
    com3.send(data)
    printed = monitor.exec(
        "import machine, time\nu = machine.UART(2)\n"
        "while u.any() < 8000: sum(range(10000))\n"
        "data = u.read()\nprint(len(data), u.overruns())\nu.write(data)",
        timeout=60,
    )
    assert printed.split() == ["8000", "0"]
    com3.expect(b"(?s).{7999}" + bytes([data[-1]]), 60)


def test_help_modules(monitor):
    printed = monitor.exec("help('modules')")
    names = "asyncio/__init__ binascii cpu gc hashlib io json machine math multiboot os re select struct sys time"
    assert {*names.split(), "uctypes", "vfs", "vmm/__init__", "vmx"} <= {*printed.split()}
    assert "guests" in monitor.exec("help()")


def test_what_is_free_in_the_heap(fresh):
    """As many bytes as gc.mem_free() counts, but for what has been freed since the last collection."""
    machine = fresh(cmdline="heap=8M")
    printed = machine.exec(
        "import cpu, gc\n"
        "gc.collect()\n"
        "print(cpu.heap_free(), gc.mem_free())\n"
        "taken = bytearray(1 << 20)\n"
        "print(cpu.heap_free(), gc.mem_free())"
    )
    at_least, free, later, left = map(int, printed.split())
    assert free - 65536 < at_least <= free + 4096
    assert left - 65536 < later <= left + 4096 and later < at_least - MIB
