"""Hundreds of randomly broken policies of all events on a running Linux, which runs on afterwards.

Broken is what a person may get wrong: functions that raise, loop, fill the heap, answer nonsense, or have another
number of arguments, and filters of any value. Answers that are right and harm the guest, such as Inject, are none of
that.
"""

SEED = 15
POLICIES = 300

_UNTIL_PAUSED = """
import time
for again in range(600000):
    if vm.state == 'paused':
        break
    time.sleep_ms(1)
why = vm.why
broken.detach()
vm.resume()
"""
_CPUID = "@vm.on(CPUID)\ndef broken(vcpu): 1 // 0"  # busybox's: calls32 has none
_CODE = """
import random, time
from vmm.memory import look
from vmm.policies import general
from vmm.policies.events import EVENTS

def raises(vcpu): 1 // 0
def misses(vcpu): return vcpu.no_such_thing
def exits(vcpu): raise SystemExit(3)
def interrupts(vcpu): raise KeyboardInterrupt
def loops(vcpu):
    while True: pass
def hides(vcpu):
    while True:
        try:
            while True: pass
        except BaseException: pass
def fills(vcpu):
    kept = []
    while True: kept.append(bytearray(10000))
def deep(vcpu): return deep(vcpu)
def few(): return None
def many(vcpu, more): return None
def reads(vcpu): return vcpu.peek(0x123456789000, 8)
def asks(vcpu): return vcpu.vm.symbols['no_such_symbol']
def attaches(vcpu): vcpu.vm.on('nothing')(raises)
def looks(vcpu): vcpu.read(0xffff)
NONSENSE = (3.5, 'x', b'y', (), [], {}, object(), True, -1, 1 << 80, Value('x'), Value(None), Value(()), Value((1,)),
            Value(1.5), Value(object()))
FUNCTIONS = (raises, misses, exits, interrupts, loops, hides, fills, deep, few, many, reads, asks, attaches, looks)
VALUES = (0, 1, 2, 3, 4, 8, 14, 0x10, 0x3f8, 0x3fd, 0x6e0, 0x80000001, -1, 1 << 70, 1.5, None, True, False, '', 'r',
'w',
          'rwx', 'lidt', 'read', 'openat', 'vfs_read', 'no_such', (), (0, 1), raises, len)

def choose(items): return items[random.randrange(len(items))]

def broken():
    if random.randrange(3):
        return choose(FUNCTIONS)
    answer = choose(NONSENSE)
    return lambda vcpu: answer

def attach(vm, event, text):
    "A policy with as many filters as the dice say, or None: it was refused."
    chosen = {}
    for filter in event.filters:
        if filter.required or not random.randrange(4):
            chosen[filter.name] = choose(VALUES)
            if filter.name == 'gpa' and random.randrange(4):
                chosen['gpa'] = text + 4096 * random.randrange(64)
    if not random.randrange(3):
        name = choose(general.FILTERS).name
        chosen[name] = broken() if name == 'when' else choose(VALUES)
    try:
        policy = vm.on(event, **chosen)(broken())
    except (ValueError, TypeError, KeyError):
        return None
    policy.limit_ms = 5
    policy.limit_kib = 64
    return policy

def attack(vm, count, seed):
    "{event: (policies attached, those that paused the guest)}"
    random.seed(seed)
    at = vm.symbols['vfs_read']
    text = look.holding(vm.vcpu, at).translate(at) & ~0xfff  # a program may run, whose tables lack it
    made = {name: [0, 0] for name in EVENTS}
    names = sorted(EVENTS)
    for number in range(count):
        name = names[number % len(names)]
        policy = None
        for again in range(30):
            policy = policy or attach(vm, EVENTS[name], text)
        if policy is None:
            continue
        made[name][0] += 1
        for wait in range(4):
            try:
                time.sleep_ms(1)
            except KeyboardInterrupt:  # a Ctrl-C in a policy is the prompt's, too
                pass
            if vm.state == 'paused':
                made[name][1] += 1
                break
        policy.detach()
        vm.resume()
    return made
"""


def check(shell, guest):
    """The guest is at work meanwhile, and says so afterwards."""
    work = "cat /proc/self/maps /proc/uptime; /bin/busybox true; /calls32"  # SYSCALL, CPUID, SYSCALL32
    shell.run(f"(while :; do {work}; done) > /dev/null 2>&1 & echo $! > /tmp/worker")
    shell.monitor.exec(_CODE)
    shell.monitor.exec(f"vm = vms['{guest}']\nmade = attack(vm, {POLICIES}, {SEED})", 240)
    made = shell.monitor.eval("made")
    print(made)
    assert [event for event in made if not made[event][0]] == ["packet"], made  # this guest has no network
    for event in ("syscall", "sysret", "step", "switch", "interrupt"):
        assert made[event][1], (event, made)  # they happened
    assert sum(attached for attached, _ in made.values()) > POLICIES // 2
    assert sum(paused for _, paused in made.values()) > POLICIES // 8
    assert shell.monitor.eval("[str(policy) for policy in vm.policies]") == []
    assert shell.monitor.eval("vm.state") in ("running", "halted")
    shell.console.send("kill `cat /tmp/worker`; wait\n")
    shell.console.expect(rb"linux:~# ", 60)
    assert shell.run("echo $((6 * 7))") == "42\n"
    for event in ("CPUID", "SYSCALL32", "SYSRET32"):  # which are rare: the dice may have missed them
        check_one(shell, guest, event)


def check_one(shell, guest, event):
    """A policy that fails at a program's first event; without it the program goes on."""
    attach = _CPUID if event == "CPUID" else f"@vm.on({event}, comm='calls32')\ndef broken(vcpu): 1 // 0"
    shell.monitor.exec(f"vm = vms[{guest!r}]\n{attach}")
    fails(shell, event, "/calls32 || /bin/busybox true")


def check_packet(shell):
    """The same of a frame that a guest with a network sends."""
    shell.monitor.exec("vm = vms['linux']\n@vm.on(PACKET, out=True)\ndef broken(vcpu): 1 // 0")
    fails(shell, "PACKET", "ping -c 1 -W 1 10.0.0.2 > /dev/null; true")


def fails(shell, event, command):
    """The policy `broken` pauses the guest when it runs the command, which goes on."""
    monitor = shell.monitor
    shell.console.send(f"{command}; echo went on\n")
    # The monitor waits: while the guest is paused, the engine passes idle time, and a third of a second is ten of
    # the guest's. After twenty Linux tells of a soft lockup.
    monitor.exec(_UNTIL_PAUSED, 240)
    assert monitor.eval("why") == f"policy broken failed on {event.lower()}"
    shell.console.expect(rb"\nwent on\n", 60)
    shell.console.expect(rb"linux:~# ", 60)
