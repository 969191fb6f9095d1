"""Nothing that a guest does makes the monitor's heap grow: tables of counts, caches, lists, messages.

A storm makes each of its exits with a number that it has not used before. Then every list and dict that can be
reached from the VM and the monitor is as long as it was after the first rounds, and so is the heap.
"""

from bench import DATA

ROUND = DATA  # how many rounds
BOARD = {"name": "board", "size": 0x1000, "access": "ro", "gsi": 5}

# R14: bytes of the instruction that may fault.
SKIP = {6: "add [rsp], r14; iretq", 13: "add rsp, 8; add [rsp], r14; iretq"}


def limit(made):
    """Rows of a bounded table: so many keys, and one for the others."""
    return made.eval("__import__('vmm.tally').tally.LIMIT") + 1


def apic(value):
    """IA32_APIC_BASE of a boot processor at its usual place, with these mode bits."""
    return f"mov ecx, 0x1b; mov eax, {0xFEE00100 | value:#x}; xor edx, edx; wrmsr"


PARTS = {
    "ports": "mov edx, r8d; in al, dx; in ax, dx; in eax, dx; or edx, 0x8000; out dx, al; out dx, eax",
    "memory": "mov esi, r8d; shl esi, 12; add esi, 0xc0000000; mov eax, [rsi]; mov [rsi], eax",
    "MSRs": "mov r14d, 2; lea ecx, [r8 + 0x2000]; rdmsr; wrmsr; lea ecx, [r8 + 0xc0010000]; rdmsr; wrmsr",
    "time": "mov r14d, 2; mov eax, r8d; xor edx, edx; mov ecx, 0x10; wrmsr; mov ecx, 0x3b; wrmsr; "
    "mov ecx, 0x6e0; wrmsr",
    "CPUID": "lea eax, [r8 + 0x20]; cpuid; lea eax, [r8 + 0x80000020]; cpuid; lea eax, [r8 + 0x40000004]; cpuid",
    "subleaves": "".join(
        f"mov eax, {leaf:#x}; mov ecx, r8d; cpuid; mov eax, {leaf:#x}; mov ecx, r8d; shl ecx, 16; cpuid; "
        for leaf in (4, 7, 0xB, 0xD, 0x40000002, 0x40000003)
    ),
    "hypercalls": "lea eax, [r8 + 0x1000]; vmcall; mov eax, 0x100; mov rbx, r8; vmcall; mov eax, 0x101; vmcall",
    "control registers": "mov r14d, 3; mov rax, r8; shl rax, 32; mov cr4, rax; "
    "mov rax, cr4; mov ebx, r8d; shl ebx, 23; or rax, rbx; mov cr4, rax; "
    "mov rax, r8; shl rax, 32; mov cr0, rax; xor ecx, ecx; mov eax, r8d; shl eax, 1; xor edx, edx; xsetbv",
    "denied": "mov r14d, 3; .byte 0x0f, 0x01, 0xc2; .byte 0x0f, 0x01, 0xc4; mov r14d, 2; mov ecx, r8d; rdpmc",
    "window": "mov rsi, 0xd0000000; mov [rsi], r8; inc qword ptr [rsi + 8]; xor ebx, ebx; mov eax, 0x100; vmcall; "
    "mov eax, 0x101; vmcall",
    "local APIC": "mov r14d, 2; "
    + "; ".join([apic(0x800), apic(0xC00), apic(0), apic(0x800)])
    + "; mov rsi, 0xfee00000; mov ecx, r8d; and ecx, 0xff0; mov [rsi + rcx], r8d; mov eax, [rsi + rcx]",
    "chips": "mov eax, r8d; out 0x70, al; out 0x71, al; in al, 0x71; mov al, 0x60; out 0x64, al; "
    "mov eax, r8d; out 0x60, al; in al, 0x60; out 0x60, al; "
    "mov dx, 0xcf8; mov eax, r8d; bts eax, 31; out dx, eax; mov dx, 0xcfc; in eax, dx; "
    "mov dx, 0x2f8; mov eax, r8d; out dx, al; mov dx, 0x3f8; out dx, al; out 0x43, al; out 0x40, al; "
    "mov rsi, 0xfec00000; mov [rsi], r8d; mov [rsi + 16], r8d",
}

SIZES = """
def sizes(what, path, found, seen, depth=0):
    "Lengths of all lists, dicts, sets and byte arrays that can be reached, by path."
    if id(what) in seen or depth > 12:
        return found
    seen.add(id(what))
    if isinstance(what, (list, tuple, dict, set, bytearray)):
        found[path] = len(what)
        if isinstance(what, dict):
            what = list(what.values())
        if isinstance(what, (list, tuple)) and len(what) < 512:
            for i, part in enumerate(what):
                sizes(part, path + "[]", found, seen, depth + 1)
    else:
        try:
            inside = what.__dict__
        except AttributeError:
            return found
        for name in inside:
            sizes(inside[name], path + "." + name, found, seen, depth + 1)
    return found
def used():
    for _ in range(2):
        gc.collect()
    return gc.mem_alloc()
def lengths(vm):
    found = {}
    seen = {id(globals())}
    sizes(vm, "vm", found, seen)
    sizes(vm.vcpu.__dict__, "vcpu", found, seen)
    sizes(vm.pc.__dict__, "pc", found, seen)
    return found
"""


def test_a_storm_of_new_numbers(bench, guest):
    bench.exec(SIZES)
    made = guest(
        "mov rax, cr4; or eax, 0x40000; mov cr4, rax; mov r8d, 1\nagain:\n" + "\n".join(PARTS.values()) + "\n"
        f"inc r8; mov [{ROUND:#x}], r8\njmp again",
        handlers=SKIP, shared=[BOARD], on_triple_fault="stop",
    )  # fmt: skip
    made.until(f"vm.memory.read_u64({ROUND:#x}) > 70", 20000)
    made.exec("vm.pause()\nbefore = lengths(vm)\nheap = used()\nvm.resume()")
    made.until(f"vm.memory.read_u64({ROUND:#x}) > 135", 60000)
    assert made.state == "running", made.eval("vm.messages")
    made.exec("vm.pause()\ngrown = used() - heap\nafter = lengths(vm)")
    most = limit(made)
    assert made.eval(f"[(p, n) for p, n in after.items() if n > max(before.get(p, n), {most})]") == []
    assert made.eval("len(after)") > 50
    assert made.eval("grown") < 4096
    assert all(count <= 32 + most for count in made.eval("[len(counts) for counts in vm.unclaimed().values()]"))
    assert bench.alive()


def test_refused_is_counted_under_words_of_ours(guest):
    """18,000 values of CR4 were 18,000 keys."""
    made = guest(
        "mov r14d, 3; mov r8d, 1\nagain: mov rax, r8; shl rax, 32; mov cr4, rax\ninc r8; cmp r8d, 500; jbe again\nhlt",
        handlers=SKIP,
    )
    made.halted()
    assert made.eval("vm.unclaimed()['refused']") == {"CR4 bits that CPUID denies": 500}


def test_others_are_counted_together(guest):
    made = guest("mov r8d, 0x1000\nagain: mov eax, r8d; vmcall; inc r8d; cmp r8d, 0x1100; jb again\nhlt")
    made.halted()
    counts = made.eval("vm.unclaimed()['hypercalls']")
    assert sum(counts.values()) == 0x100
    assert len(counts) == 32 + limit(made)


def test_messages_are_the_last_ones(bench, guest):
    made = guest("hlt")
    made.exec("""
for i in range(200):
    vm.log("line %d" % i)
    vm.report(vcpu, "report %d" % i)
    vm.log_error("error %d" % i, ValueError(i))
""")
    assert made.eval("(len(vm.messages), vm.messages[-3:])") == (64, ["line 199", "report 199", "error 199"])
    assert made.eval("len(monitor.journal._held) <= 32")
