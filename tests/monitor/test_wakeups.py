"""How soon a guest that sleeps runs when another one, or somebody at its console, gives it something to do."""

import metronome
import pytest
from bench import DATA

BOUND = 150_000  # ticks from what wakes it to its handler; half of that are the hypercalls, the first of them most
WINDOW = 0xD0000000
TIME, ANSWERED = 8, 16  # in the window: when it was last woken, how often it answered
CLOCK, SLOW_RING, RING, ACKNOWLEDGE = 0x500, 0x501, 0x100, 0x101  # hypercalls
TIMES = 20

PIC = """
mov al, 0x11; out 0x20, al
mov al, 0x20; out 0x21, al
mov al, 4; out 0x21, al
mov al, 1; out 0x21, al
mov al, 0xD7; out 0x21, al
"""  # lines 3 and 5
# COM2: interrupts for what is received, the FIFO as the test says.
UART = """
mov dx, 0x2f9; mov al, 1; out dx, al
mov dx, 0x2fa; mov al, {fifo}; out dx, al
mov dx, 0x2fc; mov al, 11; out dx, al
"""
IDLE = "sti; idle: hlt; jmp idle"

# Notes the longest way to here at DATA, and answers.
NOTES = f"""
    push rax; push rbx; push rcx; push rdx
    mov eax, {CLOCK}; vmcall
    mov ebx, {WINDOW}
    sub rax, [rbx + {TIME}]
    cmp rax, [{DATA:#x}]
    jbe known
    mov [{DATA:#x}], rax
known:
"""
ANSWERS = f"""
    mov ebx, {WINDOW}
    inc qword ptr [rbx + {ANSWERED}]
    mov al, 0x20; out 0x20, al
    pop rdx; pop rcx; pop rbx; pop rax; iretq
"""
TAKES = {
    "a doorbell": f"mov eax, {ACKNOWLEDGE}; xor ebx, ebx; vmcall",
    "a character": "mov dx, 0x2f8; in al, dx",
    "a character below the trigger level": "mov dx, 0x2f8; in al, dx",
}
GIVES = {
    "a doorbell": f"mov eax, {RING}; xor ebx, ebx; vmcall",
    "a character": "mov dx, 0x2f8; out dx, al",
    "a character below the trigger level": "mov dx, 0x2f8; out dx, al",
}


def waker(gives):
    """Gives the other one something, again once that has answered, after a while; never exits in between."""
    return f"""
    xor r8d, r8d
    mov r9d, {WINDOW}
again:
    mov eax, {CLOCK}; vmcall
    mov [r9 + {TIME}], rax
    {gives}
    inc r8
wait:
    cmp [r9 + {ANSWERED}], r8
    jne wait
    mov ecx, 30000
rest:
    dec ecx
    jnz rest
    cmp r8, {TIMES}
    jne again
    hlt
    """


@pytest.fixture
def pair(bench, guest):
    """make(gives, setup, takes, more): the one that wakes, the one that is woken."""

    def make(gives, takes, setup=""):
        shared = [{"name": "board", "size": 0x1000, "gsi": 5}]
        handler = NOTES + takes + ANSWERS
        woken = guest(PIC + setup + IDLE, handlers={0x23: handler, 0x25: handler}, shared=shared, priority=5)
        link = [{"uart": "com2", "to": f"{woken.name}:com2"}]
        waking = guest(waker(gives), shared=shared, links=link)
        for one in (woken, waking):  # a clock that both have
            one.exec(f"import cpu\nvm.hypercalls.add({CLOCK}, lambda vcpu: cpu.rdtsc())")
        woken.halted()
        woken.exec("vm.used()")
        return waking, woken

    return make


def runs_out(waking, ms=100):
    """Let it run to its end, without a line in between, which would keep guests waiting."""
    waking.exec(f"vm.resume()\ntime.sleep_ms({ms})")
    assert waking.state == "halted"


@pytest.mark.parametrize("what", GIVES)
def test_who_is_above_is_woken_at_once(bench, pair, what):
    fifo = 0xC1 if "trigger" in what else 0  # 14 characters
    waking, woken = pair(GIVES[what], TAKES[what], "" if what == "a doorbell" else UART.format(fifo=fifo))
    runs_out(waking)
    print("latest", woken.word())
    assert woken.eval("vm.used()[2]") == TIMES
    assert 0 < woken.word() < BOUND


SLOW = f"""
def slow(vcpu):
    answer = vcpu.vm.hypercalls.calls[{RING}](vcpu)
    for _ in range(5000):
        pass
    return answer
vm.hypercalls.add({SLOW_RING}, slow)
"""


def test_the_rest_of_an_exit_does_not_keep_it_waiting(pair):
    """What the monitor does for the one below after that is interrupted, as it is for a timer."""
    waking, woken = pair(f"mov eax, {SLOW_RING}; xor ebx, ebx; vmcall", TAKES["a doorbell"])
    waking.exec(SLOW)
    runs_out(waking, 400)
    print("latest", woken.word())
    assert 0 < woken.word() < BOUND


def test_top_counts_those_wake_ups_too(bench, pair):
    waking, woken = pair(GIVES["a doorbell"], TAKES["a doorbell"])
    bench.exec("sched.top()")
    runs_out(waking)
    row = next(line for line in bench.exec("sched.top()").splitlines() if line.split()[0] == woken.name).split()
    assert row[5:] == [str(TIMES), "0", "0"]


# Takes what has come, at each tick, and counts it.
RECEIVES = f"""
next:
    mov dx, 0x3fd
    in al, dx
    test al, 1
    jz none
    mov dx, 0x3f8
    in al, dx
    inc qword ptr [{DATA + 64:#x}]
    jmp next
none:
"""


def test_what_is_typed_does_not_delay_a_timer(bench, guest):
    ticking = metronome.start(guest, RECEIVES, console="com2")
    console = bench.monitor.console("com2")
    code = (
        f"vm = {ticking.ref}\ntime.sleep_ms(20)\nvm.memory.write_u64({DATA + 8 * metronome.SKIP:#x}, 5)\n"
        f"vm.memory.write_u64({DATA + 8 * metronome.LATEST:#x}, 0)\nprint('now')\n"
        "for _ in range(20):\n    time.sleep_ms(100)\n"
        f"    typed = vm.memory.read_u64({DATA + 64:#x})\n    if typed == 64: break\n"
        f"print(typed, vm.memory.read_u64({DATA + 8 * metronome.LATEST:#x}))"
    )
    printed = bench.monitor.exec(code, 120, lambda data: console.send("x" * 64) if data == b"w" else None)
    typed, latest = printed.split()[1:]
    print("latest", latest)
    assert typed == "64"
    assert int(latest) < 50_000
    assert metronome.least(ticking) == 0
