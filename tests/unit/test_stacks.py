"""vmm/insight/linux/orc.py and stack.py: layouts by release, and stacks that lie."""

import struct

import pytest

from vmm.insight.linux import orc, stack

TEXT = 0xFFFFFFFF81000000
IPS = TEXT + 0x10000
ENTRIES = TEXT + 0x20000
HEADER = TEXT + 0x30000
STACK = 0xFFFFC90000000000
HEADERS = {6.1: None, 6.3: "db84ae00", 6.4: "fe5d32bf", 7.1: "137c36ad"}


class Space:
    """Bytes by address; what nobody wrote is not mapped."""

    def __init__(self):
        self.bytes = {}

    def write(self, gva, data):
        for i, byte in enumerate(data):
            self.bytes[gva + i] = byte

    def read(self, gva, size):
        try:
            return bytes([self.bytes[gva + i] for i in range(size)])
        except KeyError:
            raise ValueError(f"gva {gva:#x} is not mapped") from None

    def number(self, gva, size):
        return int.from_bytes(self.read(gva, size), "little")


class Kernel:
    """entries: [(offset in the text, sp_offset, bp_offset, flags)]."""

    def __init__(self, entries, release=6.1, tables=True):
        self.space = Space()
        self.symbols = {"_stext": TEXT, "_etext": TEXT + 0x10000, "_einittext": TEXT + 0x10000}
        if tables:
            self.symbols["__start_orc_unwind_ip"] = IPS
            self.symbols["__stop_orc_unwind_ip"] = IPS + 4 * len(entries)
            self.symbols["__start_orc_unwind"] = ENTRIES
        if HEADERS[release]:
            self.symbols["__start_orc_header"] = HEADER
            self.space.write(HEADER, bytes.fromhex(HEADERS[release]))
        for i, (offset, sp, bp, flags) in enumerate(entries):
            at = IPS + 4 * i
            self.space.write(at, struct.pack("<i", TEXT + offset - at))
            self.space.write(ENTRIES + 6 * i, struct.pack("<hhH", sp, bp, flags))
        self.orc = orc.Orc(self) if tables else None

    def find(self, name):
        return self.symbols.get(name)

    def is_text(self, gva):
        return TEXT <= gva < TEXT + 0x10000

    def module_orc(self, gva):
        return None

    def is_thunk(self, gva):
        return TEXT + 0x8000 <= gva < TEXT + 0x9000

    def begins(self, gva):
        return gva == TEXT


@pytest.mark.parametrize(
    "release, flags, said",
    [
        (6.1, 0x005, ("sp", "", orc.CALL, False)),
        (6.1, 0x115, ("sp", "prev_sp", orc.REGS, True)),
        (6.1, 0x205, ("sp", "", orc.PARTIAL, True)),
        (6.1, 0x400, ("", "", orc.END, False)),
        (6.1, 0x000, ("", "", orc.UNDEFINED, False)),
        (6.3, 0x005, ("sp", "", orc.CALL, False)),
        (6.3, 0x505, ("sp", "", orc.REGS, True)),
        (6.3, 0x800, ("", "", orc.END, False)),
        (6.4, 0x205, ("sp", "", orc.CALL, False)),
        (6.4, 0xB14, ("bp", "prev_sp", orc.REGS, True)),
        (6.4, 0xC09, ("sp_indirect", "", orc.PARTIAL, True)),
        (6.4, 0x100, ("", "", orc.END, False)),
        (6.4, 0x000, ("", "", orc.UNDEFINED, False)),
        (7.1, 0x283, ("sp", "prev_sp", orc.CALL, False)),
        (7.1, 0x204, ("bp", "", orc.CALL, False)),
        (7.1, 0x20A, ("bp_indirect", "", orc.CALL, False)),
    ],
)
def test_entries_of_each_layout(release, flags, said):
    kernel = Kernel([(0, 8, -16, flags), (0x100, 16, 0, 0x205)], release)
    sp, bp, kind, exact = said
    assert kernel.orc.find(TEXT + 0xFF) == (sp, 8, bp, -16, kind, exact)
    assert kernel.orc.find(TEXT - 1) is None and kernel.orc.find(TEXT + 0x10000) is None


def walk(kernel, ip, sp, bp=0):
    unwinder = stack.Unwinder(kernel, ip, sp, bp)
    return list(unwinder), unwinder


def test_calls_interrupts_and_the_way_into_the_kernel():
    # 0x0: saves bp, calls; 0x100: has called it; 0x200: was interrupted there; 0x300: the entry from user mode
    kernel = Kernel([(0, 16, -16, 0x15), (0x100, 8, 0, 0x105), (0x200, 8, 0, 0x05), (0x300, 0, 0, 0x105)])
    regs = bytearray(168)
    struct.pack_into("<QQ", regs, stack.IP, TEXT + 0x200, 0x10)
    struct.pack_into("<Q", regs, 152, STACK + 0x200)
    struct.pack_into("<Q", regs, stack.BP, 0x77)
    kernel.space.write(STACK, struct.pack("<QQQ", 0x1234, TEXT + 0x101, 0))
    kernel.space.write(STACK + 0x18, regs)
    kernel.space.write(STACK + 0x200, struct.pack("<Q", TEXT + 0x301))
    user = bytearray(168)
    struct.pack_into("<QQ", user, stack.IP, 0x401000, 0x33)
    kernel.space.write(STACK + 0x208, user)
    frames, unwinder = walk(kernel, TEXT + 0x10, STACK)
    assert [(frame.pc - TEXT, frame.exact) for frame in frames] == [
        (0x10, True), (0x101, False), (0x200, True), (0x301, False)
    ]  # fmt: skip
    assert [frame.how for frame in frames] == ["registers", "orc", "orc", "orc"]
    assert (unwinder.end, unwinder.regs) == ("user mode", STACK + 0x208)


@pytest.mark.parametrize("flags", [0x400, 0x000], ids=["end", "undefined"])
def test_a_thunk_goes_back_to_what_lies_on_the_stack(flags):
    """Of code that stands for an indirect jump or a return ORC says that the stack ends there."""
    kernel = Kernel([(0, 8, 0, 0x05), (0x7FFF, 0, 0, flags)])
    # In a retpoline's CALL, behind the jump to it, behind a call of 0x100's
    kernel.space.write(STACK, struct.pack("<QQQ", TEXT + 0x8007, TEXT, TEXT + 0x101))
    kernel.space.write(STACK + 0x18, bytes(8))
    frames, unwinder = walk(kernel, TEXT + 0x8010, STACK)
    assert [(frame.pc - TEXT, frame.how, frame.exact) for frame in frames] == [
        (0x8010, "registers", True), (0x8007, "thunk", False), (0, "thunk", True), (0x101, "orc", False)
    ]  # fmt: skip
    assert unwinder.end == "first frame of the task"
    frames, unwinder = walk(kernel, TEXT + 0x7FFF, STACK)
    assert len(frames) == 1
    kernel.space.write(STACK, struct.pack("<Q", 0x401000))
    frames, unwinder = walk(kernel, TEXT + 0x8010, STACK)
    assert len(frames) == 1 and unwinder.end == "no code at 0x401000"


def test_frame_pointers_where_there_are_no_tables():
    kernel = Kernel([], tables=False)
    kernel.space.write(STACK, struct.pack("<QQQQ", STACK + 0x10, TEXT + 1, 0, 0x1234))
    frames, unwinder = walk(kernel, TEXT, STACK, STACK)
    assert [(frame.pc, frame.how) for frame in frames] == [(TEXT, "registers"), (TEXT + 1, "frame pointer")]
    assert unwinder.end == "no code at 0x1234"
    frames, unwinder = walk(kernel, TEXT, STACK, 0x55)
    assert len(frames) == 1 and unwinder.end.startswith("gva 0xdc is not mapped")  # a mark of pt_regs at 0x54


BPF = 0xFFFFFFFFC0000000  # code that no table knows


@pytest.mark.parametrize(
    ("pc", "words", "bp"),
    [
        (BPF, (TEXT + 0x10,), 5),  # its first instruction: RBP is the caller's, and no frame pointer
        (BPF, (TEXT + 0x10, 0, TEXT + 0x20), STACK + 8),  # or looks like one
        (BPF + 9, (TEXT + 0x10,), STACK + 0x800),  # nor mapped
        (BPF + 6, (6, TEXT + 0x10), 6),  # behind PUSH RBP
        (0, (TEXT + 0x10,), 5),  # a call of NULL
        (0x1234, (TEXT + 0x10,), STACK),
    ],
)
def test_what_has_only_begun_was_called_from_the_top_of_the_stack(pc, words, bp):
    kernel = Kernel([(0, 8, 0, 0x05)])
    kernel.space.write(STACK, struct.pack("<%dQ" % (len(words) + 2), *words, 0, 0))
    kernel.space.write(BPF, bytes.fromhex("0f1f44000055") + bytes.fromhex("4889e5") + bytes(16))
    frames, unwinder = walk(kernel, pc, STACK, bp)
    assert [(frame.pc, frame.how, frame.exact) for frame in frames] == [
        (pc, "registers", True), (TEXT + 0x10, "stack", False)
    ]  # fmt: skip
    assert unwinder.end == "first frame of the task"
    kernel.space.write(STACK, bytes(32))
    frames, unwinder = walk(kernel, pc, STACK, 6)
    assert len(frames) == 1
    assert unwinder.end in ("no caller on the stack", "no frame pointer", "no kernel code at %#x" % pc)


def test_stacks_without_an_end_end():
    kernel = Kernel([(0, 8, 0, 0x09)])  # the next stack is where the word at sp says
    kernel.space.write(STACK, struct.pack("<QQ", STACK, TEXT + 1))
    kernel.space.write(STACK - 8, struct.pack("<Q", TEXT + 1))
    frames, unwinder = walk(kernel, TEXT, STACK)
    assert len(frames) <= 256 and unwinder.end
    kernel = Kernel([(0, -32768, 0, 0x05)])
    frames, unwinder = walk(kernel, TEXT, STACK)
    assert len(frames) == 1 and "is not mapped" in unwinder.end
    kernel = Kernel([(0, 0, 0, 0x05)])
    kernel.space.write(STACK - 8, struct.pack("<Q", TEXT))
    assert walk(kernel, TEXT, STACK)[1].end == "the frame is its own caller"
    kernel = Kernel([(0, 8, 0, 0x05)])
    kernel.space.write(STACK, struct.pack("<Q", TEXT + 1) * 4096)
    frames, unwinder = walk(kernel, TEXT, STACK)
    assert len(frames) == 256 and unwinder.end == "more than 256 frames"
    kernel = Kernel([(0, 8, 0, 0x06)])
    assert walk(kernel, TEXT, STACK)[1].end == "register r10 of the frame is not known"
