"""A monitor, and small guests made at its prompt. Each file has the monitor as it boots; the engine is booted once.

$PCANEL_ELF names another image than the build's, $PCANEL_CPU another model than the engine's default.
"""

import os
import signal
from pathlib import Path

import pytest
import vtx
from bench import Bench
from pcanel.monitor import Monitor
from pcanel.paths import ELF

RESET_TIMEOUT = 120  # seconds


class Engine:
    """The engine for the tests of a process. From file to file the monitor resets, which takes a quarter of a boot;
    in between the engine is stopped, as its idle loop would take a whole CPU. After a failure it goes.
    """

    def __init__(self):
        self.monitor = None

    def take(self) -> Bench:
        if self.monitor:
            os.kill(self.monitor.engine.pid, signal.SIGCONT)
        else:
            image = Path(os.environ.get("PCANEL_ELF") or ELF)
            self.monitor = Monitor(engine=vtx.engine(), cpu=os.environ.get("PCANEL_CPU"), memory=256, image=image)
            self.monitor.start()
            self.monitor.wait_booted()
        return Bench(self.monitor)

    def give_back(self, bench: Bench) -> None:
        assert bench.alive()
        bench.exec("for vm in list(vms.values()): vm.destroy()")
        bench.reset(RESET_TIMEOUT)
        os.kill(self.monitor.engine.pid, signal.SIGSTOP)

    def stop(self) -> None:
        monitor, self.monitor = self.monitor, None
        if monitor:
            if monitor.engine.pid:
                os.kill(monitor.engine.pid, signal.SIGCONT)
            monitor.stop()


@pytest.fixture(scope="session")
def engine():
    engine = Engine()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def bench(engine, request):
    """The monitor without guests; the test makes its own."""
    failed = request.session.testsfailed
    try:
        bench = engine.take()
        yield bench
        engine.give_back(bench)
    except BaseException:
        engine.stop()
        raise
    if request.session.testsfailed > failed:
        engine.stop()


@pytest.fixture(scope="module")
def xsave(bench):
    """Whether guests have XSAVE: CPU models before Sandy Bridge lack it."""
    return bool(bench.eval("__import__('cpu').cpuid(1)[2] >> 26 & 1"))


@pytest.fixture
def guest(bench):
    """Makes guests of the test's own, which are gone after it."""
    made = []

    def make(*args, **options):
        made.append(bench.guest(*args, **options))
        return made[-1]

    yield make
    for guest in made:
        guest.destroy()
