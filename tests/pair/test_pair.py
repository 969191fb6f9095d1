"""Linux and the real-time guest at once, a null-modem cable between them, the prompt over both: one boot."""

import re
import time
import zlib

import pytest
import vtx
from both import guest_files
from clocks import Clocks
from elftools.elf.elffile import ELFFile
from pcanel.monitor import Monitor
from pcanel.paths import BUILD
from pcanel.symbols import Symbols
from rtos import LIMIT, Rtos
from shell import Shell

RTOS = BUILD / "guests/rtos/rtos.elf"
TICK_HZ = 100
PATTERN_A, PATTERN_B = 1664525, 1013904223  # guests/rtos/transfer.c


class Pair:
    def __init__(self, monitor):
        self.monitor = monitor
        self.rtos = Rtos(monitor).wait()
        self.linux = Shell(monitor, "linux").wait()

    def open_port(self):
        """Held open by the shell: what arrives before a program reads is kept then."""
        self.linux.run("stty -F /dev/ttyS1 raw -echo crtscts 115200 && exec 3<>/dev/ttyS1")

    def exchange(self, size, meanwhile=lambda: None):
        """Both send `size` bytes at once; all that arrives is checked against what was sent."""
        self.open_port()
        self.linux.run(f"head -c {size} /dev/urandom > /tmp/out")
        self.rtos.start(f"exchange {size}")
        self.linux.run(f"cat /tmp/out >&3 & head -c {size} <&3 > /tmp/in & true")
        meanwhile()
        report = self.rtos.transfer(self.rtos.finish())
        self.linux.run("wait", LIMIT)
        assert report["received"][:2] == (size, self.crc("/tmp/out"))
        assert report["sent"][:2] == (size, zlib.crc32(pattern(size)))
        assert self.crc("/tmp/in") == report["sent"][1]
        assert self.linux.run("wc -c < /tmp/in") == f"{size}\n"
        self.linux.run("exec 3>&-")

    def crc(self, path):
        return int(self.linux.run(f"crc32 {path}").split()[0], 16)

    def ran(self, name):
        return self.monitor.eval(f"vms[{name!r}].vcpu.guest_ticks")

    def port(self):
        """Linux's own words for its second UART: the modem lines that are high, and errors: fe, pe, brk, oe."""
        return set(re.findall(r"[A-Za-z]+", self.linux.run("grep ^1: /proc/tty/driver/serial")))

    def until_low(self, line):
        deadline = time.monotonic() + LIMIT
        while line in self.port():
            assert time.monotonic() < deadline, f"{line} stays high"

    def sent(self, name):
        """Characters that the guest has sent over the cable."""
        return int(re.search(rf"{name}:com2 \((\d+) sent", self.monitor.exec("print(monitor.links)"))[1])

    def stands_still(self, name):
        """The same, when it has not changed while both ran for a while."""
        sent = self.sent(name)
        self.linux.run("sleep 1")
        assert self.sent(name) == sent
        return sent

    def word(self, name):
        """A variable of the real-time guest."""
        return self.monitor.eval(f"vms['rtos'].vcpu.peek({Symbols(RTOS)[name]:#x}, 4)")


def code(gva, size):
    """What the real-time guest's image has there."""
    with RTOS.open("rb") as file:
        segment = next(
            s for s in ELFFile(file).iter_segments("PT_LOAD") if 0 <= gva - s["p_vaddr"] < s["p_filesz"] - size
        )
        return segment.data()[gva - segment["p_vaddr"] :][:size]


def pattern(size):
    data, seed = bytearray(), 1
    for _ in range(size):
        seed = (seed * PATTERN_A + PATTERN_B) & 0xFFFFFFFF
        data.append(seed >> 24)
    return bytes(data)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The guests of `make run`, but Linux is quiet and the tick 100 Hz, which spares Bochs minutes."""
    files = guest_files(tmp_path_factory.mktemp("pair"), {"hz=1000": f"hz={TICK_HZ}"})
    with Monitor(engine=vtx.engine(), guests=files) as monitor:
        yield Pair(monitor)


def test_both_answer_on_their_consoles(pair):
    assert "tShell" in pair.rtos.run("i")
    assert pair.linux.run("uname -s") == "Linux\n"
    assert "tSensor" in pair.rtos.run("i")


@pytest.mark.parametrize(
    "words",
    [
        "vm.symbols.forget() or vm.symbols['init_task']",
        "vm.symbols.search('openat2')",
        "vm.linux.ps()",
        "__import__('vmm.insight.exits.facts', None, None, ['of']).of(vms)",
    ],
    ids=["first symbol", "search", "first types", "what pcanel top asks"],
)
def test_a_look_into_linux_does_not_hold_up_the_other(pair, words):
    """What takes millions of ticks at the prompt makes way for the guest of a higher priority."""
    pair.monitor.exec("vm = vms['linux']; vms['rtos'].used()")
    pair.monitor.eval(f"str({words})")
    assert pair.monitor.eval("vms['rtos'].used()[5]") < 150_000


def test_the_prompt_pauses_one_and_the_other_goes_on(pair):
    monitor = pair.monitor
    monitor.exec("vms['linux'].pause()")
    ran = pair.ran("linux")
    assert "slept" in pair.rtos.run("sleep 1")
    assert pair.ran("linux") == ran
    assert monitor.eval("vms['linux'].state") == "paused"
    monitor.exec("vms['linux'].resume(); vms['rtos'].pause()")
    ran, ticks = pair.ran("rtos"), pair.word("ticks")
    rip = monitor.eval("vms['rtos'].vcpu.rip")
    assert monitor.eval(f"vms['rtos'].vcpu.peek({rip}, 8)") == code(rip, 8)
    assert pair.linux.run("echo $((6 * 7))") == "42\n"
    assert (pair.ran("rtos"), pair.word("ticks")) == (ran, ticks)
    monitor.exec("vms['rtos'].resume()")
    assert "slept" in pair.rtos.run("sleep 1")
    assert pair.word("ticks") != ticks


def test_bytes_go_both_ways_and_none_is_lost(pair):
    pair.exchange(16 << 10)
    cable = pair.monitor.exec("print(monitor.links)")
    assert cable.count(" 0 lost)") == 2


@pytest.mark.long
def test_a_mebibyte_goes_both_ways_and_none_is_lost(pair):
    pair.exchange(1 << 20)


def test_both_clocks_agree_with_the_engines(pair):
    clocks = Clocks(pair.monitor, pair.rtos, pair.linux, TICK_HZ)
    clocks.agree(5, 0.01)
    clocks.close()


def test_linux_stops_while_the_real_time_guest_reads_nothing(pair):
    """RTS falls when its ring is nearly full."""
    size = 6 << 10
    pair.open_port()
    pair.linux.run(f"head -c {size} /dev/urandom > /tmp/out")
    already = pair.sent("linux")
    pair.rtos.start(f"receive {size} late")
    pair.linux.run("cat /tmp/out >&3 & true")
    pair.until_low("CTS")
    assert pair.stands_still("linux") - already < size
    pair.rtos.console.send("\r")
    count, crc, held = pair.rtos.transfer(pair.rtos.finish())["received"]
    assert (count, crc) == (size, pair.crc("/tmp/out")) and held > 0
    pair.linux.run("wait; exec 3>&-")


def test_the_real_time_guest_stops_while_linux_reads_nothing(pair):
    """RTS falls when the tty's 4 KiB are nearly full, once: what comes afterwards has room."""
    pair.open_port()
    pair.rtos.start("send 6144")
    pair.until_low("RTS")
    pair.stands_still("rtos")
    pair.linux.run("head -c 6144 <&3 > /tmp/in", LIMIT)
    assert pair.rtos.transfer(pair.rtos.finish())["sent"] == (6144, zlib.crc32(pattern(6144)), 1)
    assert pair.crc("/tmp/in") == zlib.crc32(pattern(6144))
    pair.linux.run("exec 3>&-")


def test_a_pause_of_either_side_loses_nothing(pair):
    def pauses():
        for name in ("rtos", "linux"):
            pair.monitor.exec(f"vms[{name!r}].pause()\nimport time\ntime.sleep_ms(200)\nvms[{name!r}].resume()")

    pair.exchange(8 << 10, pauses)


def test_a_reset_of_the_real_time_guest_leaves_linux_and_the_cable_alive(pair):
    pair.rtos.start("receive 100")  # its driver is open: DTR, RTS
    assert pair.port() >= {"CTS", "DSR", "CD"}
    pair.monitor.exec("vms['rtos'].reset()")
    assert not pair.port() & {"CTS", "DSR", "CD"}
    pair.rtos.wait()
    pair.exchange(2 << 10)


def test_linux_saw_no_trouble(pair):
    assert pair.linux.troubles() == []
    port = pair.port()
    assert "rx" in port and not port & {"fe", "pe", "brk", "oe"}


def test_a_reset_of_linux_leaves_the_real_time_guest_alive(pair):
    pair.monitor.exec("vms['linux'].reset()")
    assert "tShell" in pair.rtos.run("i")
    pair.linux.wait()
    assert pair.linux.run("echo $((6 * 7))") == "42\n"


def test_a_destroyed_guest_is_an_unplugged_cable(pair):
    pair.monitor.exec("vms['rtos'].destroy()")
    assert not pair.port() & {"CTS", "DSR", "CD"}
    pair.linux.run("stty -F /dev/ttyS1 raw -echo -crtscts && echo nobody > /dev/ttyS1")
    assert pair.monitor.eval("list(vms)") == ["linux"]
