"""The real-time guest boots natively, under QEMU and under Bochs, and its shell does what it says."""

import pathlib
import re
import subprocess

import engines
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = ROOT / "build/guests/rtos"
IMAGE = BUILD / "rtos.elf"
BANNER = r"^rtos: 32 priorities, tick (\d+) Hz$"
TALK = {"qemu": engines.talk_qemu, "bochs": engines.talk_bochs}


@pytest.fixture(scope="module", autouse=True)
def image():
    subprocess.run(["make", "-s", "-C", ROOT / "guests/rtos", f"BUILD={BUILD}"], check=True)


def start(console, hz=1000):
    """Waits for the first prompt; the engine's firmware and GRUB come before it."""
    assert int(console.expect(BANNER, 60)[1]) == hz
    console.expect(r"^-> $")


def statistics(text):
    """The numbers of `stats`: {"handler": (count, min, median, 99.9 %, max), "task": ..., "lost": n}."""
    rows = {name: tuple(map(int, rest.split())) for name, rest in re.findall(r"^(handler|task) +([\d ]+)$", text, re.M)}
    return rows | {"lost": int(re.search(r"(-?\d+) lost", text)[1])}


@pytest.mark.parametrize("engine", TALK)
def test_shell(engine):
    with TALK[engine](IMAGE) as console:
        start(console)
        commands = console.run("help")
        assert all(f"  {name} " in commands for name in ("i", "stats", "spy", "test", "reboot"))
        assert "no such command" in console.run("nonsense")
        tasks = console.run("i")
        assert re.search(r"^tShell +8 +8 running", tasks, re.M)
        assert re.search(r"^idle +\d+\.\d$", tasks, re.M)
        console.run("sleep 7")
        assert re.search(r"^idle +\d+\.\d %$", console.run("spy 1"), re.M)
        rows = statistics(console.run("stats"))
        for name in ("handler", "task"):
            count, least, median, late, most = rows[name]
            assert count > 1000
            assert least <= median <= late <= most
        if engine == "bochs":  # its time is simulated: nothing delays an interrupt but the kernel itself
            assert rows["lost"] == 0
            assert rows["handler"][4] < rows["task"][4] < 5000
        console.run("stats reset")
        assert statistics(console.run("stats"))["handler"][0] < count
        text = console.run("stats all")
        for name, (count, *_) in ((name, statistics(text)[name]) for name in ("handler", "task")):
            assert sum(map(int, re.findall(rf"^{name} >= \d+: (\d+)$", text, re.M))) == count  # of one moment


@pytest.mark.parametrize("engine", TALK)
def test_kernel(engine):
    with TALK[engine](IMAGE) as console:
        start(console)
        report = console.run("test")
        assert re.search(r"^SUMMARY: 39 tests, 0 failures, 0 skipped$", report, re.M), report
        assert "FAIL" not in report
        console.run("load 1")
        assert re.search(r"^tLoad ", console.run("i"), re.M)
        assert re.search(r"^tLoad +[89]\d\.\d %$", console.run("spy 1"), re.M)
        console.run("load 0")
        assert "tLoad" not in console.run("i")
        assert re.search(r"^[1-9]\d* messages sent, \d+ received, 0 lost", console.run("demo"), re.M)


@pytest.mark.parametrize("engine", TALK)
def test_reboot_rate_and_power_off(engine):
    with TALK[engine](IMAGE, cmdline="hz=250") as console:
        start(console, 250)
        console.send("reboot")
        console.expect("^rebooting$")
        start(console, 250)
        console.send("poweroff")
        console.expect_end()


@pytest.mark.parametrize("cmdline", ["verbose hz=7", "hz=4294968296"])
def test_a_rate_out_of_range_is_refused(cmdline):
    with engines.talk_qemu(IMAGE, cmdline=cmdline) as console:
        assert "out of range" in console.expect(r"^rtos: .*\n")[0]


@pytest.mark.parametrize("seconds", [3_000_000, 4_294_968])
def test_a_sleep_of_more_ticks_than_there_are_is_long(seconds):
    with engines.talk_qemu(IMAGE) as console:
        start(console)
        console.send(f"sleep {seconds}")
        with pytest.raises(engines.Ended, match="no 'slept'"):
            console.expect("slept", 2)


def test_the_highest_rate_is_measured_exactly():
    with engines.talk_bochs(IMAGE, cmdline="hz=10000") as console:
        start(console, 10000)
        console.run("sleep 2")
        text = console.run("stats")
        assert "measuring" not in text
        period = int(re.search(r"divisor 119, (\d+) TSC ticks", text)[1])
        assert abs(period - engines.BOCHS_HZ * 119 / 1193182) < 5


def test_the_lowest_rate_runs():
    with engines.talk_bochs(IMAGE, cmdline="hz=19") as console:
        start(console, 19)
        console.run("sleep 15")  # until it has measured roughly
        ticks, seconds = map(int, re.search(r"^(\d+) ticks, (\d+) s$", console.run("tick"), re.M).groups())
        assert seconds >= 15 and seconds <= ticks / 19 < seconds + 1


def test_a_report_is_made_and_the_machine_switched_off():
    with engines.talk_bochs(IMAGE, cmdline="report=100") as console:
        console.expect(r"^deadlines inexact by \d+\n")
        console.expect_end()
        assert statistics(console.output)["handler"][0] >= 100
