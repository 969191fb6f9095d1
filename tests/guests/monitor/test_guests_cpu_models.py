"""The small guests on the other CPU models of Bochs, and a CPU without what guests need."""

import pytest
import suite
import vtx
from pcanel.engines.host import nested_vmx
from pcanel.monitor import Monitor

MODELS = (
    "corei5_arrandale_m520",  # no APIC virtualization, no XSAVE
    "corei7_sandy_bridge_2600k",
    "corei7_ivy_bridge_3770k",
    "corei7_haswell_4770",
    "broadwell_ult",
    "corei3_cnl",
    "corei7_icelake_u",
    "tigerlake",
    "sapphire_rapids",
    "arrow_lake",  # no AVX-512
)


@pytest.mark.skipif(vtx.engine() != "bochs", reason="the CPU models are those of Bochs 3.0")
@pytest.mark.parametrize("cpu", MODELS)
def test_guests(cpu):
    with suite.monitor(cpu) as running:
        for name in suite.NAMES:
            suite.check(suite.run(running, name))


@pytest.mark.parametrize(
    ("engine", "cpu", "missing"),
    [
        ("bochs", "core2_penryn_t9600", "bit 33 (ENABLE_EPT) is not offered"),
        pytest.param(
            "qemu", None, "no VT-x", marks=pytest.mark.skipif(nested_vmx().usable, reason="QEMU has VT-x here")
        ),
    ],
)
def test_without_vt_x(engine, cpu, missing):
    """One line says what is missing; the prompt works; a guest is refused with the same words."""
    with Monitor(engine=engine, cpu=cpu, memory=128, image=suite.image()) as running:
        assert running.eval("6 * 7") == 42
        text = running.console("repl").text()
        assert text.count("no guests here: ") >= 1
        assert missing in text
        assert running.eval("bool(vmx_caps.missing)") is True
        assert running.eval("len(vms)") == 0
