"""Linux and the real-time guest at once, a null-modem cable between them, the prompt over both: one boot."""

import re
import zlib

import pytest
import vtx
from both import guest_files
from pcanel.monitor import Monitor
from rtos import LIMIT, Rtos
from shell import Shell

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
        assert report["received"] == (size, self.crc("/tmp/out"))
        assert report["sent"] == (size, zlib.crc32(pattern(size)))
        assert self.crc("/tmp/in") == report["sent"][1]
        assert self.linux.run("wc -c < /tmp/in") == f"{size}\n"
        self.linux.run("exec 3>&-")

    def crc(self, path):
        return int(self.linux.run(f"crc32 {path}").split()[0], 16)

    def ran(self, name):
        return self.monitor.eval(f"vms[{name!r}].vcpu.guest_ticks")

    def port(self):
        """Linux's own word for its second UART: the modem lines that it sees."""
        return self.linux.run("grep ^1: /proc/tty/driver/serial")


def pattern(size):
    data, seed = bytearray(), 1
    for _ in range(size):
        seed = (seed * PATTERN_A + PATTERN_B) & 0xFFFFFFFF
        data.append(seed >> 24)
    return bytes(data)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The guests of `make run`, but Linux is quiet and the tick 100 Hz, which spares Bochs minutes."""
    files = guest_files(tmp_path_factory.mktemp("pair"), {"hz=1000": "hz=100"})
    with Monitor(engine=vtx.engine(), guests=files) as monitor:
        yield Pair(monitor)


def test_both_answer_on_their_consoles(pair):
    assert "tShell" in pair.rtos.run("i")
    assert pair.linux.run("uname -s") == "Linux\n"
    assert "tSensor" in pair.rtos.run("i")


def test_the_prompt_pauses_one_and_the_other_goes_on(pair):
    monitor = pair.monitor
    monitor.exec("vms['linux'].pause()")
    ran = pair.ran("linux")
    assert "slept" in pair.rtos.run("sleep 1")
    assert pair.ran("linux") == ran
    assert monitor.eval("vms['linux'].state") == "paused"
    assert monitor.eval("vms['linux'].vcpu.rip") == monitor.eval("vms['linux'].vcpu.rip")
    monitor.exec("vms['linux'].resume(); vms['rtos'].pause()")
    ran = pair.ran("rtos")
    assert pair.linux.run("echo $((6 * 7))") == "42\n"
    assert pair.ran("rtos") == ran
    monitor.exec("vms['rtos'].resume()")
    assert "slept" in pair.rtos.run("sleep 1")


def test_bytes_go_both_ways_and_none_is_lost(pair):
    pair.exchange(32 << 10)
    cable = pair.monitor.exec("print(monitor.links)")
    assert cable.count(" 0 lost)") == 2


@pytest.mark.long
def test_a_mebibyte_goes_both_ways_and_none_is_lost(pair):
    pair.exchange(1 << 20)


def test_a_pause_of_either_side_loses_nothing(pair):
    def pauses():
        for name in ("rtos", "linux"):
            pair.monitor.exec(f"vms[{name!r}].pause()\nimport time\ntime.sleep_ms(200)\nvms[{name!r}].resume()")

    pair.exchange(8 << 10, pauses)


def test_a_reset_of_the_real_time_guest_leaves_linux_and_the_cable_alive(pair):
    pair.rtos.start("receive 100")  # its driver is open: DTR, RTS
    assert {"CTS", "DSR", "CD"} <= set(re.split(r"[| \n]", pair.port()))
    pair.monitor.exec("vms['rtos'].reset()")
    assert not {"CTS", "DSR", "CD"} & set(re.split(r"[| \n]", pair.port()))
    pair.rtos.wait()
    pair.exchange(2 << 10)


def test_linux_saw_no_trouble(pair):
    assert pair.linux.troubles() == []
    assert "frame" not in pair.port() and "oe:" not in pair.port()


def test_a_reset_of_linux_leaves_the_real_time_guest_alive(pair):
    pair.monitor.exec("vms['linux'].reset()")
    assert "tShell" in pair.rtos.run("i")
    pair.linux.wait()
    assert pair.linux.run("echo $((6 * 7))") == "42\n"


def test_a_destroyed_guest_is_an_unplugged_cable(pair):
    pair.monitor.exec("vms['rtos'].destroy()")
    assert not {"CTS", "DSR", "CD"} & set(re.split(r"[| \n]", pair.port()))
    pair.linux.run("stty -F /dev/ttyS1 raw -echo -crtscts && echo nobody > /dev/ttyS1")
    assert pair.monitor.eval("list(vms)") == ["linux"]
