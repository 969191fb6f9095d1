"""Write-protected pages (port/written.c): the first write, by whatever instruction, is let through and told."""

import os
from pathlib import Path

import pytest
from pcanel.monitor import Monitor
from pcanel.paths import ELF

PAGE = 4096
SET_UP = """
import cpu, uctypes
def words(at):
    return uctypes.struct(at, {"pending": uctypes.UINT32 | 0x108, "written": uctypes.UINT32 | 0x10C,
                               "sibling": uctypes.UINT64 | 0xBC0})
def guarded(at, frame):
    "Protect a page; the memory that it took."
    if cpu.protect(at, frame, 0):
        return 0
    memory = monitor.pages.take(3 * 4096)
    assert cpu.protect(at, frame, memory)
    return memory
def bare(at):
    memory = cpu.unprotect(at)
    if memory:
        monitor.pages.give(memory)
    return bool(memory)
def told():
    out, one.written = one.written, 0
    return out
run = monitor.pages.take(4 * 4096)
at = run + 4096
frame, other = monitor.pages.take(4096), monitor.pages.take(4096)
one, two = words(frame), words(other)
page = uctypes.bytearray_at(at, 4096)
"""


@pytest.fixture(scope="module", params=[256, 5120], ids=["below 4 GiB", "above 4 GiB"])
def machine(request):
    image = Path(os.environ.get("PCANEL_ELF") or ELF)
    with Monitor(engine="qemu", memory=request.param, image=image) as monitor:
        monitor.wait_booted(180)
        monitor.exec(SET_UP)
        assert (monitor.eval("at") >= 1 << 32) == (request.param > 4096)
        yield monitor


@pytest.fixture
def guarded(machine):
    machine.exec("available = monitor.pages.available\nguarded(at, frame)\none.written = 0")
    yield machine
    machine.exec("bare(at)")
    assert machine.eval("monitor.pages.available == available")


@pytest.mark.parametrize(
    "write",
    [
        "page[7] = 9",
        "page[:] = bytes(4096)",
        "cpu.copy(run + 100, run + 8192, 8000)",
        "cpu.zero(run, 3 * 4096)",
        "uctypes.struct(at, {'q': uctypes.UINT64 | 0}).q = 5",
        "cpu.insl(0x80, at + 4092, 2)",
        "cpu.insl(0x80, run, 2048)",
        "cpu.wrote(at + 4095, 1)",
        "cpu.wrote(run, 3 * 4096)",
    ],
)
def test_a_write_is_told_once(guarded, write):
    guarded.exec(write)
    assert guarded.eval("told()") == 1
    guarded.exec(write)
    assert guarded.eval("(told(), cpu.written(at), cpu.written(at))") == (0, True, False)
    guarded.exec(write)
    assert guarded.eval("(told(), cpu.written(at))") == (1, True)


def test_what_is_written_is_there(guarded):
    guarded.exec("for i in range(4096): run_byte = i & 0xFF; page[i] = i & 0xFF")
    guarded.exec("cpu.copy(run + 8192, at, 4096)")
    assert guarded.eval("bytes(page) == bytes(range(256)) * 16 == bytes(uctypes.bytearray_at(run + 8192, 4096))")


@pytest.mark.parametrize(
    "access",
    [
        "page[7]",
        "uctypes.bytearray_at(run, 4096)[4095] = 1",
        "uctypes.bytearray_at(run + 8192, 4096)[0] = 1",
        "cpu.insl(0x80, run + 8192, 1024)",
        "cpu.wrote(run, 4096)",
        "cpu.wrote(at, 0)",
        "cpu.wrote(run + 8192, 4096)",
        "cpu.put(at + 8, 4, 0x11223344)",
    ],
)
def test_nothing_else_is(guarded, access):
    """Reads, the pages beside it, and writes of those who say so."""
    guarded.exec(access)
    assert guarded.eval("(told(), cpu.written(at))") == (0, False)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_quiet_write(guarded, size):
    """Of one that had been written to already, that stays known."""
    value = 0x8899AABBCCDDEEFF & (1 << 8 * size) - 1
    guarded.exec(f"page[0:32] = bytes(32)\ncpu.put(at + 8, {size}, {value})")
    assert guarded.eval("bytes(page[8:24])") == value.to_bytes(16, "little")
    assert guarded.eval("(told(), cpu.written(at))") == (1, True)


def test_several_pages_and_guests(guarded):
    """All vCPUs of the guest are told; a table goes with the last of its pages."""
    guarded.exec("""
two.sibling, three = 0, monitor.pages.take(4096)
guarded(at + 4096, other)
one.sibling, two.sibling = frame, 0
uctypes.bytearray_at(at + 4096, 4096)[0] = 1
""")
    assert guarded.eval("(told(), two.written)") == (0, 1)
    guarded.exec("""
two.written = 0
one.sibling, two.sibling = other, frame
page[0] = 1
""")
    assert guarded.eval("(told(), two.written, one.pending)") == (1, 1, 0)
    guarded.exec("one.sibling = two.sibling = 0\nmonitor.pages.give(three)")
    assert guarded.eval("bare(at + 4096)") is False


def test_nonsense(guarded):
    for call in ("cpu.protect(at, frame, 0)", "cpu.unprotect(run)", "cpu.written(run)", "cpu.put(run, 4, 0)"):
        with pytest.raises(Exception, match="ValueError: page"):
            guarded.exec(call)
    with pytest.raises(Exception, match="ValueError: page cannot"):
        guarded.exec("cpu.protect(1 << 45, frame, 0)")


def test_other_faults_are_as_ever(guarded):
    with pytest.raises(Exception, match="HostFault: #PF"):
        guarded.exec("uctypes.bytearray_at(0x10, 1)[0] = 1")
    with pytest.raises(Exception, match="HostFault: #PF"):
        guarded.exec(f"uctypes.bytearray_at({0x101000:#x}, 1)[0] = 1")  # text
    assert guarded.eval("told()") == 0


def test_a_soft_reset_gives_the_mapping_back(machine):
    """The objects that knew of the pages are gone, and so is what protected them."""
    machine.exec("guarded(at, frame)")
    at = machine.eval("at")
    console = machine.console("repl")
    console.send("\x04")
    console.expect(r"^MPY: soft reboot\n", 60)
    console.expect(r"^>>> $", 120)
    machine.exec(f"import uctypes, cpu\nuctypes.bytearray_at({at}, 4096)[:] = bytes(4096)")
    with pytest.raises(Exception, match="ValueError: page"):
        machine.exec(f"cpu.written({at})")
    machine.exec(SET_UP + "guarded(at, frame)\npage[0] = 1")
    assert machine.eval("told()") == 1
