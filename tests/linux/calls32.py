"""System calls of a 32-bit program in a 64-bit Linux, by INT 80H and by SYSENTER."""

import struct

from keystone import KS_ARCH_X86, KS_MODE_32, Ks

NAME = "calls32"
_BASE = 0x10000
_HEADERS = 52 + 2 * 32
_TEXT = b"by 80\nby se\n/nowhere/x\0"
# The vDSO's entry, which uses SYSENTER, is AT_SYSINFO (32) of the auxiliary vector. The exit status is 16 times the
# first mkdir's error and the second one's.
_CODE = """
    mov esi, esp
    lodsd
argv: lodsd
    test eax, eax
    jnz argv
envp: lodsd
    test eax, eax
    jnz envp
auxv: lodsd
    mov edx, eax
    lodsd
    cmp edx, 32
    jne auxv
    mov edi, eax
    mov eax, 4
    mov ebx, 1
    mov ecx, {text}
    mov edx, 6
    int 0x80
    mov eax, 4
    mov ebx, 1
    mov ecx, {text} + 6
    mov edx, 6
    call edi
    mov eax, 39
    mov ebx, {text} + 12
    mov ecx, 0x1c0
    int 0x80
    mov esi, eax
    mov eax, 39
    mov ebx, {text} + 12
    mov ecx, 0x1c0
    call edi
    shl esi, 4
    lea ebx, [esi + eax]
    neg ebx
    mov eax, 1
    int 0x80
"""


def program():
    """An ELF file of one segment, code, then text, and a note that its stack is not executed."""
    size = len(Ks(KS_ARCH_X86, KS_MODE_32).asm(_CODE.format(text=0x11000), 0x10800)[0])
    entry = _BASE + _HEADERS
    code = bytes(Ks(KS_ARCH_X86, KS_MODE_32).asm(_CODE.format(text=entry + size), entry)[0])
    assert len(code) == size
    whole = _HEADERS + size + len(_TEXT)
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    segment = struct.pack("<8I", 1, 0, _BASE, _BASE, whole, whole, 7, 0x1000)
    stack = struct.pack("<8I", 0x6474E551, 0, 0, 0, 0, 0, 6, 16)
    return header + segment + stack + code + _TEXT


_BEGIN = """
vm = vms[%r]
entered, left, wide = [], [], []
@vm.on(SYSCALL32, comm='calls32')
def enters(vcpu): entered.append(repr(vcpu.syscall))
@vm.on(SYSRET32, comm='calls32', number=['write', 'mkdir'])
def leaves(vcpu): left.append((vcpu.syscall.name, vcpu.syscall.result))
@vm.on(SYSCALL, comm='calls32')
def others(vcpu): wide.append(vcpu.syscall.name)
"""


def check(shell, guest):
    """Calls, arguments, results, and answers instead of the kernel's, each way; and nothing stays behind."""
    monitor = shell.monitor
    monitor.exec(_BEGIN % guest)
    said = shell.run("/calls32 || echo $?")
    entered, left, wide = monitor.eval("(entered, left, wide)")
    monitor.exec("for each in (enters, leaves, others): each.detach()")
    assert said == "by 80\nby se\n34\n", said
    texts = ['write(fd=1, buf="by 80\\n", count=6)', 'write(fd=1, buf="by se\\n", count=6)']
    texts += ['mkdir(pathname="/nowhere/x", mode=0700)'] * 2 + ["exit(error_code=34)"]
    assert entered == texts, entered
    assert left == [("write", 6), ("write", 6), ("mkdir", -2), ("mkdir", -2)], left
    # What the shell's child did under its old name aside, nothing was taken for a call of a 64-bit program.
    assert "write" not in wide and "mkdir" not in wide, wide
    for event in ("SYSCALL32", "SYSRET32"):
        monitor.exec(f"@vm.on({event}, number='mkdir')\ndef fails(vcpu): return Value(-5)")
        assert shell.run("/calls32 || echo $?") == "by 80\nby se\n85\n", event
        assert monitor.eval("fails.hits") == 2
        monitor.exec("fails.detach()")
    monitor.exec("@vm.on(SYSCALL32, number=[39], once=True)\ndef gone(vcpu): return HANDLED")
    assert shell.run("/calls32 || echo $?") == "by 80\nby se\n98\n"
    assert shell.run("mkdir /tmp/wide && rmdir /tmp/wide && echo made") == "made\n"
    assert monitor.eval("(gone.attached, len(vm.hidden))") == (False, 0)
    check_execve(shell)
    check_strace(shell)


def check_execve(shell):
    """A 64-bit program becomes one of 32 bits: the call's number has become that of 32-bit programs' execve, which is
    munmap of others."""
    monitor = shell.monitor
    monitor.exec(
        "from recipes import strace\ntrace = strace.trace(vm, number='execve')\nran, freed = [], []\n"
        "@vm.on(SYSRET, number='execve', comm='calls32')\ndef runs(vcpu): ran.append(repr(vcpu.syscall))\n"
        "@vm.on(SYSRET, number='munmap', comm='calls32')\ndef frees(vcpu): freed.append(repr(vcpu.syscall))"
    )
    shell.run("/calls32 || true")
    monitor.exec("for each in (runs, frees, trace): (each.detach if each is not trace else each.stop)()")
    ran, freed, lines = monitor.eval("(ran, freed, trace.lines)")
    assert len(ran) == 1 and ran[0].startswith("execve(") and ran[0].endswith(" = 0") and freed == [], (ran, freed)
    assert len(lines) == 1 and 'execve(filename="/calls32", ' in lines[0] and lines[0].endswith(" = 0"), lines


def check_strace(shell):
    """The recipe has them among the calls of 64-bit programs."""
    monitor = shell.monitor
    monitor.exec("from recipes import strace\ntrace = strace.trace(vm, comm='calls32')")
    shell.run("/calls32 || true")
    lines = [line.partition("] ")[2] for line in monitor.eval("trace.lines")]
    called = [f'write(fd=1, buf="by {way}\\n", count=6) = 6' for way in ("80", "se")]
    called += ['mkdir(pathname="/nowhere/x", mode=0700) = -1 ENOENT'] * 2 + ["exit(error_code=34) = ?"]
    assert lines == ["execve(filename=NULL, argv=NULL, envp=NULL) = 0", *called], lines
    monitor.exec("trace.stop()\ntrace = strace.trace(vm, number=['mkdir'], old=True)")
    shell.run("/calls32 || true; mkdir /tmp && false || true")
    lines = monitor.eval("trace.lines")
    assert [line.partition("] ")[2] for line in lines[:2]] == called[2:4], lines
    assert len(lines) == 3 and 'mkdir(pathname="/tmp"' in lines[2] and "EEXIST" in lines[2], lines
    monitor.exec("trace.stop()")
    assert monitor.eval("(len(vm.hidden), len(vm.policies))") == (0, 0)
