"""What a guest finds where its loader put it, told by the guest: Multiboot from an ELF64 and with address fields, flat
binaries."""

import struct

import pytest
from images import bzimage, elf, multiboot_header
from pcanel.assemble import assemble

LOAD = 0x200000
KERNEL_HALF = 0xFFFFFFFF80000000
DATA = 0x300000
FIELDS = 1 << 16
HEADER = 32


class Expression(str):
    """Python that the prompt evaluates: an image too long to be typed."""

    def __repr__(self):
        return str(self)


@pytest.fixture
def boot(bench):
    """Creates and starts a guest, lets it run to its HLT; the 32-bit words that it stored at DATA (or `at`)."""

    def boot(blobs, words, at=DATA, **config):
        config = {"name": "loaded", "memory": 16 << 20, "kernel": "k", "console": "none", **config}
        bench.exec(f"vm = monitor.create({config!r}, {blobs!r})\nvm.start()")
        bench.exec("if not wait(vm, lambda: vm.state == 'halted'): raise RuntimeError(repr(vm))")
        return struct.unpack(f"<{words}I", bench.eval(f"bytes(vm.memory.read({at:#x}, {4 * words}))"))

    def end():
        bench.exec("if 'loaded' in vms: vms['loaded'].destroy()")

    boot.end = end
    yield boot
    end()


def store(*values):
    return "".join(f"mov [{DATA + 4 * i:#x}], {value};" for i, value in enumerate(values)) + "hlt"


def test_multiboot_with_address_fields_modules_and_command_line(boot):
    source = (
        "mov ecx, [ebx + 16]; mov ecx, [ecx]; mov esi, [ebx + 24]; mov edi, [esi + 8]; mov edi, [edi];"
        "mov edx, [esi]; mov edx, [edx]; mov esi, [ebx + 20]; mov ebp, [ebx]; mov esp, [0x201000];"
    ) + store("eax", "ecx", "edx", "edi", "esi", "ebp", "esp")
    code = assemble(source, 32, LOAD + HEADER)
    flags = FIELDS | 3
    checksum = -(0x1BADB002 + flags) & 0xFFFFFFFF
    image = struct.pack("<8I", 0x1BADB002, flags, checksum, LOAD, LOAD, 0, LOAD + 0x2000, LOAD + HEADER) + code
    got = boot({"k": image, "m": b"MODU"}, 7, protocol="multiboot", cmdline="hz=1", modules=[["m", "name"]])
    text = [struct.unpack("<I", word)[0] for word in (b"hz=1", b"MODU", b"name")]
    assert got == (0x2BADB002, *text, 1, 0x24D, 0)


def test_multiboot_elf64_with_a_virtual_entry(boot):
    """Entered in 32-bit mode, where the byte of DEC EAX is no prefix."""
    header = multiboot_header(3)
    source = "mov ecx, cr0; mov edx, [0x202000]; mov esi, eax; xor eax, eax; dec eax;"
    code = header + assemble(source + store("esi", "eax", "ecx", "edx"), 32, LOAD + len(header))
    start = KERNEL_HALF + LOAD
    image = elf(64, 62, start + len(header), [(LOAD, start, code, 0x3000)])
    eax, minus_one, cr0, zero = boot({"k": image}, 4, protocol="multiboot")
    assert (eax, minus_one, zero) == (0x2BADB002, 0xFFFFFFFF, 0)
    assert cr0 & 0x80000001 == 1  # protected, no paging


def test_multiboot_memory_map_as_the_guest_walks_it(boot):
    """Each entry by the size that the one before says; DATA: how many, then base, length and type of each."""
    source = f"""
        mov esi, [ebx + 48]
        mov edx, [ebx + 44]
        add edx, esi
        mov edi, {DATA + 4:#x}
        xor ebp, ebp
        next:
        cmp esi, edx
        jae done
        lodsd
        lea ebx, [esi + eax]
        mov ecx, 20
        rep movsb
        mov esi, ebx
        inc ebp
        jmp next
        done:
    """
    header = multiboot_header(2)
    code = header + assemble(source + store("ebp").replace(";", "\n"), 32, LOAD + len(header))
    image = elf(32, 3, LOAD + len(header), [(LOAD, LOAD, code, len(code))])
    count, *words = boot({"k": image}, 1 + 5 * 4, protocol="multiboot")
    assert count == 4
    assert list(struct.iter_unpack("<QQI", struct.pack("<20I", *words))) == [
        (0, 0x9FC00, 1), (0x9FC00, 0x400, 2), (0xE0000, 0x20000, 2), (0x100000, 15 << 20, 1),
    ]  # fmt: skip


def test_flat_in_protected_mode_with_registers(boot):
    source = "mov ecx, cr0; xor edx, edx; mov dx, cs;" + store("eax", "ebx", "esp", "ebp", "edx", "ecx")
    code = assemble(source, 32, 0x408000)
    registers = {"eax": 0xFFFFFFFF, "ebx": 2, "esp": 0x7000, "ebp": 0x12345678}
    got = boot({"k": code}, 6, protocol="flat", mode="protected", address=0x408000, registers=registers)
    assert got[:5] == (0xFFFFFFFF, 2, 0x7000, 0x12345678, 0x10)
    assert got[5] & 0x80000001 == 1  # protected, no paging


def test_flat_entered_behind_its_start(boot):
    code = assemble("hlt; hlt; hlt; hlt;" + store("esi"), 32, 0x100000)
    got = boot({"k": code}, 1, protocol="flat", mode="protected", address=0x100000,
               registers={"eip": 0x100004, "esi": 77})  # fmt: skip
    assert got == (77,)


def test_selectors_of_multiboot_can_be_loaded_again(boot):
    """Code that was written for QEMU's loader goes on with the GDT that it finds."""
    header = multiboot_header(0)
    base = LOAD + len(header)
    source = "push 0x7777; xor eax, eax; mov ax, cs; xor ecx, ecx; mov cx, ss; mov edx, 0x10; mov ds, edx; mov es, edx;"
    source += "mov ss, edx; pop esi;" + store("eax", "ecx", "esi")
    far = b"\xea" + struct.pack("<IH", base + 7, 8)  # jmp 8:next
    code = header + far + assemble(source, 32, base + 7)
    got = boot({"k": elf(32, 3, base, [(LOAD, LOAD, code, len(code))])}, 3, protocol="multiboot")
    assert got == (8, 0x10, 0x7777)


def test_a_segment_that_begins_below_1_mib(boot):
    """Linked as GNU ld does for an entry at 1 MiB: the page before has the ELF header."""
    start = 0xFF000
    header = multiboot_header(0)
    code = header + assemble(f"mov eax, [{start:#x}];" + store("eax"), 32, 0x100000 + len(header))
    image = bytearray(elf(32, 3, 0x100000 + len(header), [(0x100000, 0x100000, b"", 1)])).ljust(0x1000, b"\0") + code
    struct.pack_into("<IIIIII", image, 52, 1, 0, start, start, len(image), len(image))
    assert boot({"k": bytes(image)}, 1, protocol="multiboot") == (struct.unpack("<I", b"\x7fELF")[0],)


def test_flat_over_the_usual_places_of_the_tables(boot):
    code = assemble("mov eax, 0x1234; push rax; pop rbx; hlt", 64, 0x1000)
    end = assemble(f"mov [{DATA:#x}], ebx; mov [{DATA + 4:#x}], dl; hlt", 64, 0xF000)
    head = code[:-1] + b"\xe9" + struct.pack("<i", 0xE000 - len(code) - 4)
    image = Expression(f"{head!r} + bytes({0xE000 - len(head)}) + {end!r}")
    got = boot({"k": image}, 2, protocol="flat", mode="long", address=0x1000, registers={"rsp": 0x80000, "dl": 0x80})
    assert got == (0x1234, 0x80)


def test_flat_in_real_mode_with_selectors(boot):
    source = "mov ax, ds; mov bx, es; mov cx, ss; push 0x3000; pop ds; mov [0x8000], ax; mov [0x8002], bx;"
    code = assemble(source + "mov [0x8004], cx; mov [0x8006], dx; hlt", 16, 0x7C00)
    registers = {"ds": 0x1111, "es": 0x2222, "ss": 0x300, "sp": 0x400, "dx": 0x80}
    got = boot({"k": code}, 2, at=0x38000, protocol="flat", address=0x7C00, registers=registers)
    assert got == (0x22221111, 0x800300)


@pytest.mark.parametrize("address", [0x10000, 0x20104, 0x9F000])
def test_the_stack_of_real_mode_grows_down_from_an_image_above_64_kib(boot, bench, address):
    source = "mov ax, 0x1234; push ax; push bx; mov [0x500], ss; mov [0x502], sp;"
    source += "mov [0x504], cs; mov [0x506], ds; hlt"
    got = boot({"k": assemble(source, 16, address & 15)}, 2, at=0x500, protocol="flat", address=address)
    ss, sp, cs, ds = struct.unpack("<4H", struct.pack("<2I", *got))
    top = address & ~15
    assert (cs << 4, ds) == (top, 0)
    assert (ss << 4) + sp == top - 4
    assert bench.eval(f"vm.memory.read_u16({top - 2})") == 0x1234
    assert bench.eval("vm.memory.read(0, 0x400) == bytes(0x400)")  # the interrupt vectors


def test_a_stack_of_the_guests_own_in_real_mode_above_64_kib(boot):
    code = assemble("mov [0x500], ss; mov [0x502], sp; hlt", 16, 0)
    keys = {"protocol": "flat", "address": 0x20000}
    assert boot({"k": code}, 1, at=0x500, registers={"sp": 0x7000}, **keys) == (0x7000 << 16,)
    boot.end()
    assert boot({"k": code}, 1, at=0x500, registers={"ss": 0x1000, "esp": 0x80}, **keys) == (0x1000 | 0x80 << 16,)


def test_an_older_bzimage_is_entered_in_real_mode_and_finds_a_bios(boot, bench):
    """Its set-up code asks for memory, moves a block from its kernel, waits for a tick, asks for a key that waits."""
    source = """
        sti
        xor bx, bx
        mov es, bx
        int 0x12
        mov es:[0x600], ax
        mov word ptr es:[0x602], ds
        mov eax, [0x228]
        mov es:[0x604], eax
        mov eax, 0xe820
        mov edx, 0x534d4150
        mov ebx, 3
        mov ecx, 24
        mov di, 0x610
        stc
        int 0x15
        mov es:[0x608], eax
        pushf
        pop ax
        mov es:[0x60c], ax
        mov es:[0x60e], bx
        mov dword ptr es:[0x710], 0x0000ffff
        mov dword ptr es:[0x714], 0x00009310
        mov dword ptr es:[0x718], 0x0624ffff
        mov dword ptr es:[0x71c], 0x00009300
        mov si, 0x700
        mov cx, 2
        mov ah, 0x87
        int 0x15
        mov eax, es:[0x46c]
    tick:
        hlt
        cmp eax, es:[0x46c]
        je tick
        mov ax, 0x0e41
        int 0x10
        mov ah, 1
        int 0x16
        jz nokey
        mov byte ptr es:[0x628], 1
    nokey:
        xor ah, ah
        int 0x16
        mov es:[0x62a], ax
        cli
        hlt
    """
    image = bytearray(bzimage(b"KERN" * 64, version=0x207))
    code = assemble(source, 16, 0x6C)
    image[0x26C : 0x26C + len(code)] = code
    assert len(code) < 0x190
    config = {"name": "loaded", "memory": 16 << 20, "protocol": "linux", "kernel": "k", "console": "none"}
    config["cmdline"] = "x=1"
    bench.exec(f"vm = monitor.create({config!r}, {{'k': {bytes(image)!r}}})\nvm.start()")
    bench.exec("if not wait(vm, lambda: vm.screen().text[0] == 'A'): raise RuntimeError(repr(vm))")
    bench.exec("vm.pc.com1.rx(ord('Q'))")
    bench.exec("if not wait(vm, lambda: vm.memory.read_u16(0x62a)): raise RuntimeError(repr(vm))")
    words = struct.unpack("<HHIIHHQQI", bench.eval("bytes(vm.memory.read(0x600, 0x24))"))
    base_memory, ds, cmdline, smap, flags, following, base, size, kind = words
    assert (base_memory, ds, cmdline) == (639, 0x1000, 0x20000)
    assert (smap, flags & 1, following) == (0x534D4150, 0, 0)
    assert (base, size, kind) == (1 << 20, 15 << 20, 1)
    assert bench.eval("bytes(vm.memory.read(0x624, 4))") == b"KERN"
    assert bench.eval("(vm.memory.read_u8(0x628), vm.memory.read_u16(0x62a))") == (0, 0x1000 | ord("Q"))
    assert bench.eval("vm.unclaimed()['refused']") == {}
    assert bench.eval("bytes(vm.memory.read(0x20000, 4))") == b"x=1\0"
