"""What it costs to look into a Linux from the prompt: names, types, the list of tasks (docs/inspect.md).

Each row is a question at the prompt, with the ticks that it takes; the heap is what the answers leave in use. The
guest is guests/linux.toml, Debian's cloud kernel, at its shell.
"""

from pcanel.bench.guest import Row
from pcanel.bench.monitored import UNMITIGATED
from pcanel.engines.choose import choose
from pcanel.monitor import Monitor
from pcanel.paths import ROOT

_GUEST = ROOT / "guests/linux.toml"
_TIMEOUT = 600  # seconds
_CODE = """
import cpu, gc
def cost(f):
    t = cpu.rdtsc()
    f()
    return cpu.rdtsc() - t
def costs(vm):
    nothing = min([cost(lambda: None) for _ in range(9)])
    vm.symbols.forget()
    gc.collect()
    heap = gc.mem_alloc()
    said = {}
    said['symbols_ready'] = cost(lambda: len(vm.symbols))
    gc.collect()
    said['symbols_heap'] = gc.mem_alloc() - heap
    gva = vm.symbols['do_sys_openat2']
    said['symbol_by_name'] = cost(lambda: vm.symbols['do_sys_openat2'])
    said['symbol_by_address'] = cost(lambda: vm.symbols.at(gva + 0x1c))
    heap = gc.mem_alloc()
    said['type_first'] = cost(lambda: vm.type('struct task_struct'))
    vm.linux.ps()
    gc.collect()
    said['types_heap'] = gc.mem_alloc() - heap
    said['type_later'] = cost(lambda: vm.type('struct task_struct'))
    gc.collect()
    said['ps_50'] = cost(vm.linux.ps) * 50 // len(vm.linux.ps())
    vcpu, memory = vm.vcpu, vm.memory
    said['translate'] = min([cost(lambda: vcpu.translate(gva)) for _ in range(9)]) - nothing
    said['read_u64'] = min([cost(lambda: memory.read_u64(0x1000)) for _ in range(9)]) - nothing
    return said
"""


def costs(monitor: Monitor, guest: str) -> dict[str, int]:
    """{row: ticks, or bytes} of a Linux that is at its shell and of which nothing has been asked yet."""
    monitor.exec(_CODE, _TIMEOUT)
    return monitor.eval(f"costs(vms[{guest!r}])", _TIMEOUT)


def rows(cpu: str | None = None) -> dict[str, Row]:
    """The figures of a boot of their own, by the names in `measures.INSIDE`."""
    monitor = Monitor(cpu=cpu, guests=[_GUEST], cmdline=UNMITIGATED)
    monitor.choice = choose("bochs")
    with monitor:
        monitor.console("linux").expect(rb"linux:~# ", _TIMEOUT)
        return {name: Row(value, value, value) for name, value in costs(monitor, "linux").items()}
