"""vmm/acpi: what a guest finds by scanning, by the specification's tables and iasl."""

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from clock import Clock
from needs import lacking
from support import Memory

from vmm.acpi import install, loader, tables
from vmm.devices import acpi_pm, hpet, mc146818

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def aml(tmp_path_factory):
    if not shutil.which("iasl"):
        lacking("no iasl (package acpica-tools)")
    out = tmp_path_factory.mktemp("acpi") / "dsdt_aml.py"
    script = ROOT / "host-tools" / "compile_asl.py"
    subprocess.run([sys.executable, script, ROOT / "vmm" / "acpi" / "dsdt.asl", out], check=True)
    values = {}
    exec(out.read_text(), values)
    return values["AML"]


def sums_to_zero(data):
    return sum(data) & 0xFF == 0


def collect(memory):
    """{signature: bytes} by the way an operating system goes: scan, XSDT, RSDT, FADT."""
    found = [a for a in range(0xE0000, 0x100000, 16) if memory.read(a, 8) == b"RSD PTR "]
    assert len(found) == 1
    rsdp = memory.read(found[0], 36)
    assert sums_to_zero(rsdp[:20]) and sums_to_zero(rsdp) and rsdp[15] == 2
    rsdt_gpa, length, xsdt_gpa = struct.unpack_from("<IIQ", rsdp, 16)
    assert length == 36

    def table(gpa):
        data = memory.read(gpa, memory.read_u32(gpa + 4))
        assert gpa + len(data) <= 0x100000 and sums_to_zero(data)
        return data

    rsdt, xsdt = table(rsdt_gpa), table(xsdt_gpa)
    gpas = struct.unpack("<%dQ" % ((len(xsdt) - 36) // 8), xsdt[36:])
    assert gpas == struct.unpack("<%dI" % ((len(rsdt) - 36) // 4), rsdt[36:])
    result = {b"RSDT": rsdt, b"XSDT": xsdt}
    for gpa in gpas:
        result[memory.read(gpa, 4)] = table(gpa)
    facs, dsdt = struct.unpack_from("<II", result[b"FACP"], 36)
    assert struct.unpack_from("<QQ", result[b"FACP"], 132) == (0, dsdt)
    result[b"DSDT"] = table(dsdt)
    assert facs % 64 == 0
    result[b"FACS"] = memory.read(facs, 64)
    return result


def test_tables_by_the_way_of_an_operating_system(aml):
    memory = Memory(1 << 20)
    assert install(memory, aml, cpus=2, present=("COM1", "COM3", "KBD", "HPET"), hpet_id=hpet.ID) == 0xE0000
    found = collect(memory)
    assert set(found) == {b"RSDT", b"XSDT", b"FACP", b"APIC", b"HPET", b"DSDT", b"FACS"}
    fadt = found[b"FACP"]
    assert len(fadt) == 268 and fadt[8] == 5
    assert struct.unpack_from("<H", fadt, 46)[0] == 9
    assert struct.unpack_from("<I", fadt, 48)[0] == 0  # no SMI_CMD: always ACPI mode
    flags = struct.unpack_from("<I", fadt, 112)[0]
    assert flags >> 10 & 1 and not flags >> 20 & 1 and not flags >> 4 & 1
    assert fadt[116:129] == bytes((1, 8, 0, 1)) + struct.pack("<Q", 0xCF9) + b"\x06"
    assert struct.unpack_from("<H", fadt, 109)[0] == 0b111
    blocks = (tables.PM1A_EVT_BLK, tables.PM1A_CNT_BLK, tables.PM_TMR_BLK, tables.GPE0_BLK)
    offsets = (acpi_pm.PM1_STS, acpi_pm.PM1_CNT, acpi_pm.PM_TMR, acpi_pm.GPE0_STS)
    assert [block - tables.PM_BASE for block in blocks] == list(offsets)
    for legacy, extended in ((56, 148), (64, 172), (76, 208), (80, 220)):
        port = struct.unpack_from("<I", fadt, legacy)[0]
        assert tables.PM_BASE <= port < tables.PM_BASE + acpi_pm.SIZE
        assert struct.unpack_from("<Q", fadt, extended + 4)[0] == port
    assert flags >> 8 & 1 and fadt[108] == mc146818.CENTURY
    facs = found[b"FACS"]
    assert facs[:4] == b"FACS" and struct.unpack_from("<I", facs, 4)[0] == 64
    dsdt = found[b"DSDT"]
    at = dsdt.index(b"_S5_")
    assert dsdt[at + 4 : at + 9] == bytes((0x12, 8, 4, 0x0A, acpi_pm.SLP_TYP_S5))
    present = {"COM1": 15, "COM2": 0, "COM3": 15, "COM4": 0, "KBD_": 15, "MOU_": 0, "HPET": 15}
    for name, status in present.items():
        at = dsdt.index(name.encode() + b"\x08_STA\x0c")
        assert struct.unpack_from("<I", dsdt, at + 10)[0] == status


def test_the_hpet_table_names_what_the_chip_says(aml):
    memory = Memory(1 << 20)
    install(memory, aml)
    assert b"HPET" not in collect(memory)
    install(memory, aml, hpet_id=hpet.ID)
    table = collect(memory)[b"HPET"]
    chip = hpet.Hpet(Clock(), None, None)
    assert struct.unpack_from("<IBBBBQBHB", table, 36) == (chip.read(0, 4), 0, 64, 0, 0, 0xFED00000, 0, 0, 0)
    assert len(table) == 56


def firmware(files, memory, places):
    """What firmware does with the loader's commands."""
    files = {name: bytearray(data) for name, data in files.items()}
    at = {}
    script = bytes(files[loader.LOADER_FILE])
    assert len(script) % 128 == 0
    for start in range(0, len(script), 128):
        command, body = struct.unpack_from("<I", script, start)[0], script[start + 4 : start + 128]
        name = body[:56].rstrip(b"\0").decode()
        if command == 1:
            align, zone = struct.unpack_from("<IB", body, 56)
            at[name] = places[zone]
            assert at[name] % align == 0
        elif command == 2:
            source = body[56:112].rstrip(b"\0").decode()
            offset, size = struct.unpack_from("<IB", body, 112)
            value = int.from_bytes(files[name][offset : offset + size], "little") + at[source]
            files[name][offset : offset + size] = value.to_bytes(size, "little")
        else:
            assert command == 3
            offset, begin, length = struct.unpack_from("<III", body, 56)
            assert files[name][offset] == 0
            files[name][offset] = -sum(files[name][begin : begin + length]) & 0xFF
    for name, gpa in at.items():
        memory.write(gpa, files[name])


def test_firmware_that_places_them_finds_the_same_tables(aml):
    machine = {"cpus": 2, "present": ["COM1", "COM3", "KBD", "HPET"], "hpet_id": hpet.ID}
    machine["pci"] = ([tables.table(b"SSDT", 2, bytes(40))], [10, 11], 0xFEF00000, b"")
    ours, theirs = Memory(1 << 20), Memory(1 << 20)
    install(ours, aml, **machine)
    firmware(loader.files(aml, **machine), theirs, {1: 0x80000, 2: 0xF6790})
    want, found = collect(ours), collect(theirs)
    assert set(found) == set(want)
    for name in (b"APIC", b"HPET", b"DSDT", b"FACS", b"SSDT", b"MCFG"):
        assert found[name] == want[name]
    assert struct.unpack_from("<QHBB", want[b"MCFG"], 44) == (0xFEF00000, 0, 0, 0) and len(want[b"MCFG"]) == 60
    assert struct.unpack_from("<I", found[b"FACP"], 36)[0] == 0x80000


def test_whether_there_is_a_vga_is_told(aml):
    for screen, absent in ((False, 1), (True, 0)):
        memory = Memory(1 << 20)
        install(memory, aml, screen=screen)
        assert struct.unpack_from("<H", collect(memory)[b"FACP"], 109)[0] >> 2 & 1 == absent


def entries(madt):
    at = 44
    while at < len(madt):
        yield madt[at], madt[at + 2 : at + madt[at + 1]]
        at += madt[at + 1]
    assert at == len(madt)


@pytest.mark.parametrize("cpus", (1, 3, 16))
def test_madt(cpus):
    madt = bytes(tables.madt(cpus))
    assert struct.unpack_from("<II", madt, 36) == (0xFEE00000, 1)
    by_type = {}
    for kind, body in entries(madt):
        by_type.setdefault(kind, []).append(body)
    assert by_type[0] == [struct.pack("<BBI", n, n, 1) for n in range(cpus)]
    assert by_type[1] == [struct.pack("<BBII", cpus, 0, 0xFEC00000, 0)]
    assert by_type[2] == [struct.pack("<BBIH", 0, 0, 2, 0), struct.pack("<BBIH", 0, 9, 9, 0xD)]
    assert by_type[4] == [struct.pack("<BHB", 0xFF, 0, 1)]


def test_iasl_reads_them_all(aml, tmp_path):
    memory = Memory(1 << 20)
    install(memory, aml)
    for name, data in collect(memory).items():
        path = tmp_path / (name.decode().lower() + ".dat")
        path.write_bytes(data)
        done = subprocess.run(["iasl", "-d", path], capture_output=True, text=True, cwd=tmp_path)
        said = done.stdout + done.stderr
        text = path.with_suffix(".dsl").read_text()
        assert done.returncode == 0, said
        for word in ("incorrect checksum", "invalid", "unknown", "error"):
            assert word not in (said + text).lower(), (name, said)
    text = (tmp_path / "dsdt.dsl").read_text()
    assert "0xA5C35A3" not in text and "Name (CPUS, 0x00000001)" in text


def test_refusals(aml):
    memory = Memory(1 << 20)
    with pytest.raises(ValueError, match="17 processors"):
        install(memory, aml, cpus=17)
    with pytest.raises(ValueError, match="no CPUS"):
        install(memory, aml.replace(b"CPUS", b"XXXX"))
    with pytest.raises(ValueError, match="no optional BELL, PIC"):
        install(memory, aml, present=("COM1", "BELL", "PIC"))
    with pytest.raises(ValueError, match="do not fit"):
        install(memory, aml + bytes(0x20000))


def test_status_of_devices_by_the_reference_interpreter(aml, tmp_path):
    if not shutil.which("acpiexec"):
        lacking("no acpiexec (package acpica-tools)")
    memory = Memory(1 << 20)
    install(memory, aml, cpus=2, present=("COM1", "COM2", "HPET"))
    (tmp_path / "dsdt.dat").write_bytes(collect(memory)[b"DSDT"])
    want = {"COM2": 15, "COM3": 0, "KBD": 0, "MOU": 0, "HPET": 15, "CP01": 15, "CP02": 0}
    for name, status in want.items():
        done = subprocess.run(
            ["acpiexec", "-b", "evaluate \\_SB.%s._STA" % name, "dsdt.dat"],
            capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip
        assert "[Integer] = %016X" % status in done.stdout, done.stdout
