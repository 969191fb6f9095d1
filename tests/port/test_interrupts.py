"""Ctrl-C, the watchdog, and waiting."""

import time

import pytest
from pcanel.repl import RemoteError

LOOPS = {
    "bytecode": "def f():\n  while True: pass\n",
    "native": "@micropython.native\ndef f():\n  while True: pass\n",
    "viper": "@micropython.viper\ndef f():\n  while True: pass\n",
    "viper, calling C": "import cpu\n@micropython.viper\ndef f():\n  g = cpu.rdtsc\n  while True: g()\n",
    "sleep": "import time\ndef f():\n  time.sleep(3600)\n",
    "select": "import select\ndef f():\n  select.poll().poll()\n",
    "asyncio": "import asyncio\nasync def g():\n  await asyncio.sleep(3600)\ndef f():\n  asyncio.run(g())\n",
}


def start(monitor, definition):
    """Runs f() at the friendly prompt, by paste mode."""
    console = monitor.console("repl")
    console.send("\r\n\x05")
    console.expect("=== ", 10)
    console.send(definition.replace("\n", "\r") + "\rprint('going')\rf()\r\x04")
    console.expect(r"^going$", 10)
    time.sleep(0.3)
    return console


@pytest.mark.parametrize("name", LOOPS)
def test_ctrl_c_stops(monitor, name):
    console = start(monitor, LOOPS[name])
    console.send("\x03")
    console.expect(r"KeyboardInterrupt: ?\n>>> ", 10)


@pytest.mark.parametrize("name", LOOPS)
def test_watchdog_stops(monitor, name):
    with pytest.raises(RemoteError, match="Timeout"):
        monitor.exec(LOOPS[name] + "import cpu\ncpu.watch(cpu.rdtsc() + cpu.tsc_hz // 5)\nf()", 20)


def test_watchdog_disarmed(monitor):
    assert "went on" in monitor.exec(
        "import cpu, time\ncpu.watch(cpu.rdtsc() + cpu.tsc_hz // 20)\ncpu.watch(0)\ntime.sleep(0.2)\nprint('went on')"
    )


def test_watchdog_is_caught_in_viper(monitor):
    assert "cut short" in monitor.exec(
        "import cpu\n@micropython.viper\ndef f():\n"
        "  try:\n    while True: pass\n  except cpu.Timeout:\n    print('cut short')\n"
        "cpu.watch(cpu.rdtsc() + cpu.tsc_hz // 20)\nf()"
    )


def test_sleep_lasts(monitor):
    printed = monitor.exec(
        "import cpu, time\nfor ms in (0, 1, 30, 200):\n"
        "  t = cpu.rdtsc()\n  time.sleep_ms(ms)\n  print(ms, (cpu.rdtsc() - t) * 1000 // cpu.tsc_hz)"
    )
    for line in printed.splitlines():
        wanted, slept = map(int, line.split())
        assert wanted <= slept < wanted + 100


def test_idle_allocates_nothing(monitor):
    assert "nothing" in monitor.exec(
        "import cpu, gc, micropython\n"
        "def f():\n"
        "  for i in range(50):\n"
        "    cpu.idle(cpu.rdtsc() + 100000)\n    cpu.wanted()\n    cpu.watch(0)\n"
        "micropython.heap_lock()\nf()\nmicropython.heap_unlock()\nprint('nothing')"
    )
