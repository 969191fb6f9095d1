"""Exceptions of the host's CPU: Python exceptions where Python can have them, a panic otherwise."""

import pytest
from elftools.elf.elffile import ELFFile
from pcanel.repl import RemoteError

FAULTS = {
    "page 0": ("machine.mem32[0]", "#PF", 0),
    "beyond all memory": ("machine.mem32[0x8000000000]", "#PF", 0x8000000000),
    "no RAM above 4 GiB": ("machine.mem8[0x140000000]", "#PF", 0x140000000),
    "read-only text": ("machine.mem32[multiboot.image()[0]] = 0", "#PF", 0x100000),
    "non-canonical": ("machine.mem32[0x8000 << 48]", "#GP", 0),
    "copy from nowhere": ("cpu.copy(0x2000000, 0x7f00000000, 64)", "#PF", 0x7F00000000),
}


@pytest.mark.parametrize("case", FAULTS)
def test_becomes_a_python_exception(monitor, case):
    statement, name, address = FAULTS[case]
    printed = monitor.exec(
        "import cpu, machine, multiboot\n"
        f"try:\n  {statement}\n"
        "except cpu.HostFault as e:\n  print(e.name, e.address, e.args[0] == e.name, e.rip > 0)"
    )
    assert printed.split() == [name, str(address), "True", "True"]


def test_traceback_names_the_fault(monitor):
    with pytest.raises(RemoteError, match=r"line 3, in touch\s+HostFault: #PF error_code=0x2 .*address=0x10"):
        monitor.exec("import machine\ndef touch():\n  machine.mem32[0x10] = 1\ntouch()")


def test_in_viper_code(monitor):
    assert "caught 16" in monitor.exec(
        "import cpu\n"
        "@micropython.viper\n"
        "def poke(at: int):\n  p = ptr32(at)\n  p[0] = 1\n"
        "for i in range(1000):\n"
        "  try:\n    poke(16)\n"
        "  except cpu.HostFault as e:\n    address = e.address\n"
        "print('caught', address)"
    )


def test_deep_recursion_is_a_python_exception(monitor):
    with pytest.raises(RemoteError, match="RuntimeError: maximum recursion depth exceeded"):
        monitor.exec("def f(n):\n  return f(n + 1)\nf(0)")


def test_fatal_fault_prints_registers_and_backtrace(fresh):
    machine = fresh()
    with machine._machine.image.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".symtab")
        idt = symbols.get_symbol_by_name("idt")[0]["st_value"]
    # With the gate of #PF gone, a page fault is a double fault.
    console = machine.console("repl")
    console.send(f"import machine; machine.mem32[{idt} + 16 * 14 + 4] = 0; machine.mem8[0]\r\n")
    console.expect(r"PANIC: #DF error_code=0{8}", 30)
    console.expect(r"RIP=[0-9a-f]{16} RSP=[0-9a-f]{16} RFL=", 5)
    console.expect(r"CR0=[0-9a-f]{16} CR2=0{16} ", 5)
    console.expect(r"backtrace(.|\n)*(  0{10}1[0-9a-f]{5}\n){5,}", 5)
    console.expect("The machine is stopped", 5)
