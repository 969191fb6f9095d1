"""A guest of high priority with a timer, which notes how late its interrupts are."""

from bench import DATA, deadline_timer

PERIOD = 100_000  # ticks, the 1 kHz of the real-time guest
VECTOR = 0x40
COUNT, LATEST, LEAST = 0, 1, 3  # words that it stores; LEAST is below 0 where one came before its deadline
SKIP = 2  # and one that it reads: ticks whose lateness does not count

SOURCE = f"""
{deadline_timer(VECTOR)}
    rdtsc
    shl rdx, 32
    lea r12, [rax + rdx + %d]
again:
    mov rax, r12
    mov rdx, r12
    shr rdx, 32
    mov ecx, 0x6e0
    wrmsr
    sti
    hlt
    cli
    jmp again
"""
TICK = f"""
    rdtsc
    shl rdx, 32
    or rax, rdx
    sub rax, r12
    cmp rax, [{DATA + 8 * LEAST:#x}]
    jge late
    mov [{DATA + 8 * LEAST:#x}], rax
late:
    cmp qword ptr [{DATA + 8 * SKIP:#x}], 0
    je counts
    dec qword ptr [{DATA + 8 * SKIP:#x}]
    jmp known
counts:
    cmp rax, [{DATA + 8 * LATEST:#x}]
    jle known
    mov [{DATA + 8 * LATEST:#x}], rax
known:
    inc qword ptr [{DATA + 8 * COUNT:#x}]
    add r12, %d
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
"""


def start(guest, more="", period=PERIOD, priority=10, go=True, **config):
    """The guest, running. more: code that its handler ends with; it may use RAX, RBX, RCX, RDX."""
    tick = f"{TICK % period}\n{more}\niretq"
    made = guest(SOURCE % period, handlers={VECTOR: tick}, priority=priority, **config)
    if go:
        made.go()
    return made


def latest(metronome, ms):
    """Ticks from a deadline to its handler at most, of the next so many ms."""
    # While a line runs, guests stand still: what comes late through that does not count.
    printed = metronome.exec(
        f"time.sleep_ms(10)\nvm.memory.write_u64({DATA + 8 * SKIP:#x}, 5)\n"
        f"vm.memory.write_u64({DATA + 8 * LATEST:#x}, 0)\ntime.sleep_ms({ms})\n"
        f"print('latest', vm.memory.read_u64({DATA + 8 * LATEST:#x}))",
        600,
    )
    return int(printed.rpartition("latest ")[2])


def forget(metronome):
    """Lateness counts anew, from five ticks on."""
    metronome.exec(f"vm.memory.write_u64({DATA + 8 * SKIP:#x}, 5)\nvm.memory.write_u64({DATA + 8 * LATEST:#x}, 0)")


def so_far(metronome):
    """Ticks from a deadline to its handler at most, since forget()."""
    return metronome.word(LATEST)


def least(metronome):
    """Ticks from a deadline to its handler at least, below 0 where an interrupt came early, else 0."""
    word = metronome.word(LEAST)
    return word - (1 << 64) if word >> 63 else word
