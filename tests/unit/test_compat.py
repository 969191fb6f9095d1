"""Which function a 32-bit program's system call is, by the comparisons of ia32_sys_call()."""

import pytest
from keystone import KS_ARCH_X86, KS_MODE_64, Ks

from vmm.insight.linux import compat

START = 0xFFFFFFFF81005600
# Compilers test a range first, or a single number; the leaves jump, but for exit(), which does not return.
CODE = """
    nop dword ptr [rax + rax]
    cmp esi, 5
    je {open}
    ja high
    cmp esi, 1
    jne other
    call {exit}
    ud2
other:
    test esi, esi
    je {restart}
    cmp esi, 3
    jbe low
    jmp {write}
low:
    cmp esi, 2
    je {fork}
    jmp {read}
high:
    cmp esi, 0x127
    je {openat}
    jb {ni}
    cmp esi, 0x129
    jge {ni}
    jmp {mkdirat}
"""
NAMES = {
    "restart": "__do_sys_restart_syscall",
    "exit": "__ia32_sys_exit",
    "fork": "__do_sys_fork",
    "read": "__ia32_sys_read",
    "write": "__ia32_sys_write",
    "open": "__ia32_compat_sys_open",
    "openat": "__ia32_compat_sys_openat",
    "mkdirat": "__ia32_sys_mkdirat",
    "ni": "__ia32_sys_ni_syscall",
}
NUMBERS = {0: "restart", 1: "exit", 2: "fork", 3: "read", 4: "write", 5: "open", 0x127: "openat", 0x128: "mkdirat"}


class Kernel:
    def __init__(self, code):
        self.code = code
        self.calls = {}
        self.symbols = self.space = self
        self.table = None

    def find(self, name):
        return START if name == "ia32_sys_call" else self.table

    def around(self, gva):
        return "", START, START + len(self.code)

    def at(self, gva):
        index, rest = divmod(gva - START - 0x100000, 0x100)
        return list(NAMES.values())[index] + ("+0x%x" % rest if rest else "")

    def own(self, name):
        names = list(NAMES.values())
        return [START + 0x100000 + 0x100 * names.index(name)] if name in names else []

    def read(self, gva, size):
        assert gva == START and size == len(self.code)
        return self.code


def assembled(text):
    places = {name: START + 0x100000 + 0x100 * i for i, name in enumerate(NAMES)}
    return Kernel(bytes(Ks(KS_ARCH_X86, KS_MODE_64).asm(text.format(**places), START)[0]))


def test_every_number_has_the_function_that_the_code_calls():
    assert compat.functions(assembled(CODE)) == {number: NAMES[name] for number, name in NUMBERS.items()}


def test_code_that_is_no_tree_ends_with_an_error():
    with pytest.raises(ValueError, match="no tree of comparisons"):
        compat.functions(assembled("again: cmp esi, 1\njmp again\n"))


def test_a_kernel_without_such_calls_says_so():
    kernel = Kernel(b"\xc3")
    kernel.find = lambda name: None
    with pytest.raises(ValueError, match="does not tell its system calls of 32-bit programs"):
        compat.functions(kernel)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("__ia32_sys_write", ("write", True)),
        ("__ia32_compat_sys_execve", ("execve", True)),
        ("__ia32_compat_sys_ia32_mmap", ("mmap", False)),
        ("__do_sys_getuid16", ("getuid16", True)),
    ],
)
def test_names(function, name):
    assert compat.name(function) == name


class WithTable(Kernel):
    """Before 6.9: ia32_sys_call_table, and the functions behind it."""

    TABLE = START + 0x200000

    def __init__(self, names):
        super().__init__(b"")
        self.entries = [START + 0x100000 + 0x100 * list(NAMES).index(name) for name in names]

    def find(self, name):
        return self.TABLE if name == "ia32_sys_call_table" else None

    def around(self, gva):
        return "ia32_sys_call_table", self.TABLE, self.TABLE + 8 * len(self.entries)

    def number(self, gva, size):
        assert size == 8
        return self.entries[(gva - self.TABLE) // 8]


def test_a_table_of_functions():
    names = ["restart", "exit", "fork", "ni", "write"]
    expected = {number: NAMES[name] for number, name in enumerate(names) if name != "ni"}
    assert compat.functions(WithTable(names)) == expected
    kernel = WithTable(names)
    assert [compat.function(kernel, number) for number in range(6)] == [expected.get(number) for number in range(6)]


def test_one_number_is_found_alone():
    kernel = assembled(CODE)
    assert {number: compat.function(kernel, number) for number in NUMBERS} == {n: NAMES[v] for n, v in NUMBERS.items()}
    assert compat.function(kernel, 0x126) is compat.function(kernel, 0x200) is None
    assert kernel.calls == {}


def test_numbers_of_a_few_names():
    kernel = assembled(CODE)
    expected = {"openat": [0x127], "fork": [2], "open": [5]}
    assert compat.numbers(kernel, ["openat", "fork", "open", "nothing"]) == expected
    assert compat.numbers(WithTable(["restart", "fork", "ni", "fork"]), ["fork"]) == {"fork": [1, 3]}
