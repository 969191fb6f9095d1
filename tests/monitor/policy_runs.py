"""What the tests of policies share: guests that run to their HLT under a policy, and what policies arm."""

from bench import DATA

STORE = f"""
    mov rdi, {DATA:#x}
    mov [rdi], rax
    mov [rdi + 8], rbx
    mov [rdi + 16], rcx
    mov [rdi + 24], rdx
    hlt
"""
CPUID = "mov eax, 0x40000000\nxor ecx, ecx\ncpuid\n" + STORE
SIGNATURE = int.from_bytes(b"Pcan", "little")


def run(guest, source, event=None, body="", **options):
    """Run a guest with one policy to its HLT; the guest."""
    made = guest(source, **options)
    if event:
        made.policy(event, body)
    made.halted()
    return made


# What policies arm: secondary controls, guest/host masks, primary controls but for the interrupt window.
ARMED = "[vcpu.read(f) for f in (0x401E, 0x6000, 0x6002)] + [vcpu.events.primary & ~4]"


def watched(guest, source, event, body="pass", **options):
    """Run a guest with a policy that counts; [hits, whether detaching puts back all that was armed], and the guest."""
    made = guest(source + STORE, **options)
    before = made.eval(ARMED)
    made.policy(event, body)
    made.halted()
    hits = made.eval("p.hits")
    made.exec("p.detach()")
    return [hits, made.eval(ARMED) == before], made


def only(test):
    """A policy's lines: it fails, and the guest never comes to its HLT, unless it sees what it should."""
    return f"if not ({test}): raise AssertionError\n"
