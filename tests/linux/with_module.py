"""An initramfs with one module of the kernel that boots, and what the monitor says of it."""

import io
import lzma
import stat

from elftools.elf.elffile import ELFFile
from pcanel.guest.initramfs import Archive

NAME = "loop.ko"


def module(tree):
    """The bytes of the module in the unpacked package of a kernel at `tree`."""
    found = next(tree.rglob(NAME + "*"))
    return lzma.decompress(found.read_bytes()) if found.suffix == ".xz" else found.read_bytes()


def initramfs(initrd, tree, target, programs=()):
    """Write a copy of an initramfs with /loop.ko, and programs: ((name, bytes), ...)."""
    archive = Archive()
    archive.add(NAME, stat.S_IFREG | 0o644, module(tree))
    for name, data in programs:
        archive.add(name, stat.S_IFREG | 0o755, data)
    target.write_bytes(initrd.read_bytes() + archive.finish())
    return target


def _symbols(shell, tree):
    """{name: [address]} by the module's file and where the guest says that its sections are."""
    file = ELFFile(io.BytesIO(module(tree)))
    places = {}
    for section in (".text", ".data"):
        places[section] = int(shell.run(f"cat /sys/module/loop/sections/{section}"), 16)
    said = {}
    for symbol in file.get_section_by_name(".symtab").iter_symbols():
        index = symbol["st_shndx"]
        section = file.get_section(index).name if isinstance(index, int) else None
        if section in places and symbol["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT"):
            said.setdefault(symbol.name, []).append(places[section] + symbol["st_value"])
    return said


def check(shell, guest, tree):
    """Names, types and stacks of a module, by insmod and after rmmod."""
    vm = f"vms['{guest}']"
    ask = shell.monitor.eval
    assert ask(f"{vm}.symbols.all('loop_configure')") == []
    shell.run("insmod /loop.ko max_loop=2")
    theirs = _symbols(shell, tree)
    assert len(theirs) > 30
    for name in ("lo_release", "lo_ioctl", "loop_configure", "loop_index_idr"):
        assert ask(f"{vm}.symbols.all('{name}')") == theirs[name], name
        assert ask(f"{vm}.symbols.at({theirs[name][0]})") == f"{name} [loop]"
    gva = theirs["lo_ioctl"][0]
    assert ask(f"{vm}.symbols.at({gva + 9})") == "lo_ioctl+0x9 [loop]"
    assert ask(f"{vm}.symbols['lo_ioctl [loop]']") == gva
    assert ask(f"[{vm}.symbols.is_data(name) for name in ('lo_ioctl [loop]', 'lo_ioctl', 'loop_index_idr')]") == [
        False, False, True,
    ]  # fmt: skip
    assert ("lo_ioctl [loop]", gva) in [tuple(row) for row in ask(f"{vm}.symbols.search('lo_ioc*')")]
    text = ask(f"repr({vm}.type('struct loop_device'))")
    assert text.startswith("struct loop_device {") and " struct gendisk *lo_disk\n" in text
    # The module's IDR of its devices, typed: two, with the kernel's own structs in the module's.
    devices = ask(
        f"[(index, device.lo_number, device.lo_disk.disk_name) for index, device in {vm}.object('struct idr',"
        f" {vm}.symbols['loop_index_idr']).idr_rt.xarray_('struct loop_device')]"
    )
    assert devices == [(0, 0, "loop0"), (1, 1, "loop1")]
    assert ask(f"{vm}.kernel.module_orc({gva})[2]") > 10
    assert ask(f"{vm}.kernel.is_text({gva})") is True
    shell.run("rmmod loop")
    assert ask(f"{vm}.symbols.at({gva + 9})") is None
    assert ask(f"{vm}.type('struct file').size") > 100
