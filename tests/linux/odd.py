"""A program with many mappings, a name of control characters, raw sockets and a dead child, and two functions."""

import re
import struct

from keystone import KS_ARCH_X86, KS_MODE_64, Ks

NAME = "odd"
_BASE = 0x10000000  # where no other program of the initramfs has anything
_HEADERS = 64 + 2 * 56
_COMM = b"a\x1b[2J\nb\0"
_VMA = b"my memory\0"
_MAPS = 40
# plain(7) is called every 20 ms; it calls inner.
_CODE = """
    mov edi, 15
    mov rsi, {comm}
    mov eax, 157
    syscall
    xor r12d, r12d
more: xor edi, edi
    mov esi, 4096
    mov edx, r12d
    and edx, 1
    mov r10d, 0x22
    mov r8, -1
    xor r9d, r9d
    mov eax, 9
    syscall
    inc r12d
    cmp r12d, {maps}
    jne more
    mov rdx, rax
    mov edi, 0x53564d41
    xor esi, esi
    mov r10d, 4096
    mov r8, {vma}
    mov eax, 157
    syscall
    mov edi, 17
    mov esi, 3
    mov edx, 0x300
    mov eax, 41
    syscall
    mov edi, 2
    mov esi, 3
    mov edx, 1
    mov eax, 41
    syscall
    mov eax, 57
    syscall
    test eax, eax
    jnz loop
    mov eax, 60
    xor edi, edi
    syscall
loop: mov edi, 7
    call plain
    push 20000000
    push 0
    mov rdi, rsp
    xor esi, esi
    mov eax, 35
    syscall
    pop rax
    pop rax
    jmp loop
plain: call inner
    lea eax, [rdi + 1000]
    mov [{word}], rax
    ret
inner: ret
"""


class Program:
    """file: the ELF file, a segment with code, texts and a word; plain, inner, word: gvas."""

    def __init__(self):
        entry = _BASE + _HEADERS
        size = len(self._assemble(entry, entry))
        code = self._assemble(entry, entry + size)
        assert len(code) == size
        self.plain = entry + code.rindex(b"\xe8\x11\0\0\0")  # its CALL of inner
        self.inner = entry + size - 1
        self.word = entry + size + len(_COMM + _VMA) + 7 & ~7
        data = code + _COMM + _VMA
        data += bytes(self.word + 8 - entry - len(data))
        whole = _HEADERS + len(data)
        header = b"\x7fELF\x02\x01\x01" + bytes(9)
        header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
        segment = struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, whole, whole, 0x1000)
        stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
        self.file = header + segment + stack + data

    def _assemble(self, entry, texts):
        vma = texts + len(_COMM)
        word = vma + len(_VMA) + 7 & ~7
        values = {"comm": texts, "vma": vma, "word": word, "maps": _MAPS}
        return bytes(Ks(KS_ARCH_X86, KS_MODE_64).asm(_CODE.format(**values), entry)[0])


def _maps(text):
    """Rows as vm.linux.maps() has them, of /proc/PID/maps."""
    rows = []
    for line in text.splitlines():
        match = re.match(r"(\w+)-(\w+) (\S+) (\w+) (\S+) (\d+) *(.*)$", line)
        start, end, perm, offset, device, inode, path = match.groups()
        rows.append((int(start, 16), int(end, 16), perm, int(offset, 16), device, int(inode), path))
    return rows


def check(shell, guest):
    """What the monitor says of the program beside what the guest's own /proc does."""
    monitor = shell.monitor
    ask = monitor.eval
    monitor.exec(f"vm = vms['{guest}']")
    pid = int(shell.run(f"(/{NAME} > /dev/null 2>&1 & echo $!); sleep 1"))
    (dead,) = ask(f"[row[0] for row in vm.linux.ps() if row[1:3] == ({pid}, 'Z')]")
    check_view(shell, ask, pid, dead)
    check_places(shell, ask, pid)
    shell.run(f"kill -9 {pid}")


def check_view(shell, ask, pid, dead):
    theirs = _maps(shell.run(f"cat /proc/{pid}/maps"))
    ours = [tuple(row) for row in ask(f"[tuple(row) for row in vm.linux.maps({pid})]")]
    assert ours == theirs and len(ours) > _MAPS, (ours, theirs)
    comm = _COMM[:-1].decode()
    assert ask(f"vm.linux.task({pid}).comm") == comm
    printed = ask(f"repr(vm.linux.ps()) + repr(vm.linux.threads({pid})) + repr(vm.linux.stack({pid}))")
    assert printed.count("a\\x1b[2J\\nb") == 4 and "\x1b" not in printed, printed  # the child has the name, too
    assert ask(f"repr(vm.linux.stack({dead}))").splitlines()[1:] == ["(the task has ended: it has no stack any more)"]
    packet = {int(line.split()[8]) for line in shell.run("cat /proc/net/packet").splitlines()[1:]}
    raw = {int(line.split()[9]) for line in shell.run("cat /proc/net/raw").splitlines()[1:]}
    rows = [tuple(row) for row in ask("[tuple(row) for row in vm.linux.sockets()]")]
    assert packet and {row[4] for row in rows if row[0][:2] == "p_"} == packet, rows
    assert raw and {row[4] for row in rows if row[0] == "raw"} == raw, rows
    assert [row[:4] for row in rows if row[0] == "raw"] == [("raw", "UNCONN", "0.0.0.0:1", "0.0.0.0:*")]


_ADDRESSES = """
seen = []
vm.on(CALL, at=%(plain)d, pid=%(pid)d, limit=2)(lambda vcpu: seen.append(vcpu.args[0]))
vm.on(RETURN, at=%(plain)d, pid=%(pid)d, limit=2)(lambda vcpu: seen.append(vcpu.result))
vm.on(WRITE, at=%(word)d, size=8, pid=%(pid)d, limit=2)(lambda vcpu: seen.append(vcpu.new))
"""


def check_places(shell, ask, pid):
    """Addresses of a program with pid= are that process's, whatever runs."""
    monitor = shell.monitor
    program = Program()
    places = {"plain": program.plain, "word": program.word, "pid": pid}
    monitor.exec(_ADDRESSES % places)
    for _ in range(100):
        shell.run("sleep 0.1")
        if not ask("len(vm.policies)"):
            break
    assert sorted(ask("seen")) == [7, 7, 1007, 1007, 1007, 1007] and ask("len(vm.hidden)") == 0
    monitor.exec(f"b = vm.break_at({program.inner}, pid={pid}, once=True)")
    _stands(shell, ask)
    assert ask("(vm.stopped.rip, b.hits, vm.stopped.task.pid)") == (program.inner, 1, pid)
    assert ask("[line.name for line in vm.disassemble(count=1)]") == ["ret"]
    assert ask("[frame.pc for frame in vm.backtrace()][:2]") == [program.inner, program.plain + 5]
    assert ask("(vm.finish().gva, vm.stopped.cpl)") == (program.plain + 5, 3)
    # The guest stands in the process: its addresses are meant now, by the vCPU that stands there.
    monitor.exec(f"w = vm.watch({program.word}, once=True); vm.resume()")
    _stands(shell, ask)
    assert ask("(w.hits, w.new)") == (1, 1007)
    monitor.exec("vm.resume()")
    for where in (0x10, _BASE + 0x100000):
        said = monitor.exec(f"try: vm.break_at({where}, pid={pid})\nexcept ValueError as error: print(error)")
        assert f"process {pid} (a\\x1b[2J\\nb) has nothing mapped there" in said, said
    said = monitor.exec("try: vm.break_at(0x400000, pid=2)\nexcept ValueError as error: print(error)")
    assert "task 2 (kthreadd) is a kernel thread" in said, said


def _stands(shell, ask):
    for _ in range(100):
        if ask("vm.state") == "paused":
            return
        shell.monitor.exec("import time; time.sleep(0.1)")
    raise AssertionError("the guest has not come to the place")
