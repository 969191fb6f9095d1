"""The prompt, the capabilities, a policy and the small guests under KVM's nested VMX."""

import pytest
import suite

TIMEOUT = 300  # seconds for one guest, which takes 10 of a whole CPU

_CODE = b"\x31\xc0\x0f\xa2\x66\x89\x1e\x00\x05\xf4"  # xor ax, ax; cpuid; mov [500h], ebx; hlt
_CONFIG = {
    "name": "tiny", "memory": 1 << 20, "protocol": "flat", "kernel": "tiny/kernel",
    "address": 0x7C00, "mode": "real", "console": "none",
}  # fmt: skip
_VENDOR = """
import time
def vendor():
    if tiny.state != 'off': tiny.power_off()
    tiny.start()
    for _ in range(2000):
        if tiny.state == 'halted': break
        time.sleep_ms(1)
    return bytes(tiny.memory.read(0x500, 4))
"""
# What a guest prints stays in the monitor: on its way out, a character costs a dozen exits to KVM.
_KEEP = """
class Kept:
    def __init__(self):
        self.text = bytearray()
    def any(self):
        return 0
    def readchar(self):
        return -1
    def writechar(self, c):
        self.text.append(c)
        return True
def keep(vm):
    kept = vm.console.host = Kept()
    return kept
"""
_LINES = "[str(line, 'ascii') for line in bytes(kept.text).split(b'\\r\\n')[:-1]]"


@pytest.fixture(scope="module")
def running():
    with suite.monitor(None, "nested") as running:
        yield running


def test_prompt(running, ticks):
    ticks(running)
    assert running.eval("[6 * 7, 2 ** 70]") == [42, 1 << 70]
    assert running.eval("monitor.active") is True
    assert "no guests here" not in running.console("repl").text()
    assert running.engine.outer_ticks() > 1_000_000_000
    assert running.eval("__import__('cpu').tsc_hz") == pytest.approx(100e6, rel=0.005)


def test_capability_report(running, ticks):
    """What KVM offers its guest is less than what Bochs offers, and what is used is among it."""
    ticks(running)
    report = running.exec("print(vmx_caps)")
    assert "missing" not in report
    assert running.eval("vmx_caps.misc.PREEMPTION_TIMER_SHIFT") == 5
    assert running.eval("(vmx_caps.ept_vpid.PAGING_WB, vmx_caps.ept_vpid.PAGING_UC)") == (1, 0)
    offered, used = running.eval("(vmx_caps.found['proc2'].raw, vmx_caps.used['proc2'].raw)")
    assert used & ~offered == 0
    assert f"ProcBased2: offered {offered:#010x}, used {used:#010x}" in report
    lacks = {"PAUSE_LOOP_EXITING": 0, "EPT_VIOLATION_VE": 0, "ENABLE_EPT": 1}
    assert {name: running.eval(f"vmx_caps.found['proc2'].{name}") for name in lacks} == lacks


def test_a_policy_changes_a_cpuid_answer(running, ticks):
    ticks(running)
    running.exec(f"tiny = monitor.create({_CONFIG!r}, {{'tiny/kernel': {_CODE!r}}})\n{_VENDOR}")
    assert running.eval("vendor()") == b"Genu"
    running.exec("handle = tiny.on(CPUID, leaf=0)(lambda vcpu: Value((vcpu.rax, 0x6E616350, 0, 0)))")
    assert running.eval("vendor()") == b"Pcan"
    running.exec("handle.detach()")
    assert running.eval("vendor()") == b"Genu"
    running.exec("tiny.destroy()")


@pytest.mark.parametrize("name", suite.NAMES)
def test_guest(running, ticks, name):
    """All checks hold."""
    ticks(running)
    running.exec(f"{_KEEP}kept = keep(vms[{name!r}])\n{suite.start(name)}")
    running.console("repl").expect(rf"\[{name}\] powered off by the guest", TIMEOUT)
    suite.check(running.eval(_LINES))
    assert running.eval(f"vms[{name!r}].state") == "off"
