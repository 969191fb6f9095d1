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
        assert re.search(r"^tIdle +31 +31 ready", tasks, re.M)
        assert re.search(r"^tShell +8 +8 running", tasks, re.M)
        console.run("sleep 7")
        assert re.search(r"^tIdle +\d+\.\d %$", console.run("spy 1"), re.M)
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
        assert re.search(r"^handler >= \d+: \d+$", console.run("stats all"), re.M)


@pytest.mark.parametrize("engine", TALK)
def test_kernel(engine):
    with TALK[engine](IMAGE) as console:
        start(console)
        report = console.run("test")
        assert re.search(r"^SUMMARY: 22 tests, 0 failures, 0 skipped$", report, re.M), report
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


def test_a_rate_out_of_range_is_refused():
    with engines.talk_qemu(IMAGE, cmdline="verbose hz=7") as console:
        assert "out of range" in console.expect(r"^rtos: .*\n")[0]
