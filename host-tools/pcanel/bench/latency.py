"""How late the real-time guest's timer interrupts are: alone, and beside a Linux that boots or works; KVM as the peer.

The guest (guests/rtos) measures by itself and says so when it has had enough interrupts. The Linux is Debian's cloud
kernel; its first process is one of guests/latency. Lines run at the monitor's prompt in the setting for that only.
"""

import contextlib
import http.server
import re
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pcanel.bench import kvm, modules
from pcanel.bench.monitored import UNMITIGATED
from pcanel.console import Console
from pcanel.engines.choose import choose
from pcanel.errors import ConsoleTimeout, PcanelError
from pcanel.guest.initramfs import Archive, add_system
from pcanel.monitor import Monitor
from pcanel.outer import Outer
from pcanel.paths import BUILD, ROOT

HZ = 1000
INTERRUPTS = 60_000
SETTINGS = {
    "alone": None,
    "booting": "Linux boots, and when it has, again",
    "busy": "Linux runs dd, a fork loop and console output",
    "prompt": "the same, and a person types at the monitor's prompt and prints tables",
    "busy, 4 vCPUs": "the same work on a Linux with 4 vCPUs",
    "printing": "Linux prints, faster than its console takes it",
    "transfers": "Linux runs dd on its disk and wget from the host's network",
}
GOALS = {"median": 5000, "max": 10000}  # ticks
_RTOS = BUILD / "guests/rtos/rtos.elf"
_VMLINUX = BUILD / "guests/cloud.vmlinux"
_SCRIPTS = ROOT / "guests/latency"
_FIRST = {
    "booting": "/again",
    "busy": "/busy",
    "prompt": "/busy",
    "busy, 4 vCPUs": "/busy",
    "printing": "/printing",
    "transfers": "/transfers",
}
_BEGINS = "latency: begins"  # a first process says so where it is measured from then on, not from its boot
_OWN = {"busy, 4 vCPUs": "linux4", "transfers": "linux-devices"}  # guests of settings that have one of their own
_DEVICES = '[[disk]]\nimage = "disk"\n[[net]]\nswitch = "host"\n'
_DISK = 8 << 20  # bytes
_FILE = bytes(4 << 20)  # what wget gets
# What the person types, again and again.
_LINES = (
    "print(vms)",
    "sched.top()",
    "print(monitor.links)",
    "vms['linux'].exit_counts()",
    "vms['rtos'].vcpu.registers()",
    "vms['linux'].symbols['vfs_read']",
    "vms['linux'].linux.ps()",
    "sorted(i * 7919 % 1009 for i in range(1000))[:3]",
)
_CMDLINE = "console=ttyS0 quiet tsc_early_khz=100000 tsc=reliable rdinit="
_LINUX_MEMORY = 128  # MiB
_RTOS_MEMORY = 16
_TIMEOUT = 3600  # seconds
_GLANCE = 0.1
_LOST = re.compile(r"(\d+) interrupts, (-?\d+) lost\n")
_ROW = re.compile(r"^(handler|task) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", re.MULTILINE)
_INEXACT = r"deadlines inexact by (\d+)\n"

# The real-time guest runs under SCHED_FIFO.
_SCRIPT = f"""
/kvmrun /linux > /linux.log 2>&1 &
until grep -q "^{_BEGINS}" /linux.log; do
    sleep 1
done
/kvmrun /rtos 50 > /printed 2>&1
status=$?
cat /printed
exit $status
"""


@dataclass(frozen=True)
class Latency:
    """What the guest says at its end, in ticks from a deadline; task: of the task that the interrupt wakes.

    inexact: how long before its deadline an interrupt seemed to come: so well does the guest know deadlines.
    collections: of the monitor's garbage meanwhile; waited: the longest that a guest which was due has ever waited for
    one, since the monitor's start.
    """

    system: str
    setting: str
    hz: int
    lost: int
    count: int
    min: int
    median: int
    permille_999: int
    max: int
    task_median: int
    task_max: int
    inexact: int
    collections: int | None = None
    waited: int | None = None


def parse(system: str, setting: str, text: str) -> Latency:
    """Raises PcanelError where the guest has not reported."""
    rows = {name: list(map(int, figures)) for name, *figures in _ROW.findall(text)}
    lost = _LOST.search(text)
    inexact = re.search(_INEXACT, text)
    if set(rows) != {"handler", "task"} or not lost or not inexact:
        raise PcanelError(f"{system}, {setting}: the real-time guest has not reported\n{text[-2000:]}")
    _, _, task_median, _, task_max = rows["task"]
    return Latency(system, setting, HZ, int(lost[2]), *rows["handler"], task_median, task_max, int(inexact[1]))


def initrd() -> bytes:
    """busybox, and a first process for each setting with Linux."""
    archive = Archive()
    add_system(archive, _SCRIPTS / "busy")
    modules.add_modules(archive, (*modules.VIRTIO, *modules.BLK, *modules.NET))
    for name in ("busy", "printing", "again", "transfers"):
        archive.add(name, stat.S_IFREG | 0o755, (_SCRIPTS / name).read_bytes())
    return archive.finish()


def rtos_cmdline(interrupts: int) -> str:
    return f"hz={HZ} report={interrupts}"


class Monitored:
    """The monitor with both guests, neither started. A context manager."""

    def __init__(self, cpu: str | None, interrupts: int = INTERRUPTS):
        self._directory = tempfile.TemporaryDirectory(prefix="latency-")  # read when the monitor starts
        directory = Path(self._directory.name)
        (directory / "initrd").write_bytes(initrd())
        (directory / "disk").write_bytes(bytes(_DISK))
        linux, several, devices, rtos = [
            directory / f"{name}.toml" for name in ("linux", "linux4", "linux-devices", "rtos")
        ]
        for file, cpus, console, more in (
            (linux, 1, "com2", ""),
            (several, 4, "none", ""),
            (devices, 1, "none", _DEVICES),
        ):
            file.write_text(
                f'name = "{file.stem}"\nmemory = "{_LINUX_MEMORY}M"\nprotocol = "linux"\nkernel = "{_VMLINUX}"\n'
                f'initrd = "initrd"\ncpus = {cpus}\nconsole = "{console}"\nautostart = false\n{more}'
            )
        rtos.write_text(
            f'name = "rtos"\nmemory = "{_RTOS_MEMORY}M"\nprotocol = "multiboot"\nkernel = "{_RTOS}"\n'
            f'cmdline = "{rtos_cmdline(interrupts)}"\npriority = 10\nautostart = false\n'
        )
        self.monitor = Monitor(cpu=cpu, guests=[linux, several, devices, rtos], cmdline=UNMITIGATED)
        self.monitor.choice = choose("bochs")
        self._runs: tuple[str, str] | None = None  # the Linux that runs, and its first process

    def __enter__(self) -> "Monitored":
        with contextlib.ExitStack() as stack:
            stack.callback(self._directory.cleanup)
            self._port = stack.enter_context(_server())
            stack.enter_context(self.monitor)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception) -> None:
        self._stack.close()

    def run(self, setting: str) -> Latency:
        monitor = self.monitor
        self._have_linux(_OWN.get(setting, "linux"), _FIRST.get(setting))
        monitor.exec("import gc\ngc.collect()\nvms['rtos'].start()", 300)
        before = self._counters()
        text = self._at_the_prompt() if setting == "prompt" else _reported(monitor.console("rtos"))
        after = self._counters()
        return replace(
            parse("pcanel", setting, text),
            collections=after["collections"] - before["collections"],
            waited=after["collections_latest"],
        )

    def _have_linux(self, name: str, first: str | None) -> None:
        """This Linux with this first process, or none. One that runs already goes on: a boot is most of a setting."""
        wanted = (name, first) if first else None
        if wanted == self._runs:
            return
        if self._runs:
            self.monitor.exec(f"vms[{self._runs[0]!r}].power_off()")
        self._runs = wanted
        if first:
            cmdline = f"{_CMDLINE}{first} port={self._port}"
            start = f"vm = vms[{name!r}]\nvm.config['cmdline'] = {cmdline!r}\nvm.start()"
            self.monitor.exec(start, 300)
        if name != "linux":  # it has no line to the outside
            self._await_work(name)
        elif first and _BEGINS in (_SCRIPTS / first[1:]).read_text():
            self.monitor.console(name).expect("^" + _BEGINS, _TIMEOUT)

    def _await_work(self, name: str) -> None:
        """Until all vCPUs of a guest have worked for half a second of guest time, or it has got data by its network."""
        test = f"all(vcpu.guest_ticks > 50000000 for vcpu in vms[{name!r}].vcpus)"
        if name == _OWN["transfers"]:
            test = f"vms[{name!r}].expansion.ports[0].received[1] > {len(_FILE)}"
        end = time.monotonic() + _TIMEOUT
        while not self.monitor.eval(test):
            if time.monotonic() > end:
                raise PcanelError(f"{name} does not come to its work")
            self.monitor.exec("import time\ntime.sleep_ms(200)", 300)

    def _at_the_prompt(self) -> str:
        """The guest's report, while a person uses the prompt."""
        repl, rtos = self.monitor.console("repl"), self.monitor.console("rtos")
        end = time.monotonic() + _TIMEOUT
        repl.send("\r")
        while True:
            for line in _LINES:
                repl.expect(r"^>>> ", _TIMEOUT)
                repl.send(line + "\r")
            try:
                text = _reported(rtos, _GLANCE)
            except ConsoleTimeout:
                if time.monotonic() > end:
                    raise
            else:
                repl.expect(r"^>>> ", _TIMEOUT)
                return text

    def _counters(self) -> dict:
        return self.monitor.eval("__import__('cpu').counters()")

    def pause(self) -> int:
        """Ticks of the longest of some garbage collections now."""
        return int(
            self.monitor.exec(
                "import cpu, gc\nlongest = 0\nfor _ in range(10):\n    began = cpu.rdtsc()\n    gc.collect()\n"
                "    longest = max(longest, cpu.rdtsc() - began)\nprint(longest)"
            )
        )


@contextlib.contextmanager
def _server() -> Iterator[int]:
    """A port of the loopback that serves _FILE by HTTP."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(_FILE)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(_FILE)

        def log_message(self, *_arguments) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def _reported(console: Console, timeout: float = _TIMEOUT) -> str:
    return console.expect(rf"(?s).*?{_INEXACT}", timeout)[0].decode()


def under_kvm(cpu: str | None, interrupts: int = INTERRUPTS) -> Latency:
    """Beside a busy Linux, on one CPU; SCHED_FIFO for the real-time guest."""
    with tempfile.TemporaryDirectory(prefix="latency-") as name:
        directory = Path(name)
        (directory / "initrd").write_bytes(initrd())
        linux, rtos = directory / "linux", directory / "rtos"
        files = [_VMLINUX, directory / "initrd"]
        kvm.machine_file(linux, _LINUX_MEMORY, "linux", files, _CMDLINE + _FIRST["busy"])
        kvm.machine_file(rtos, _RTOS_MEMORY, "multiboot", [_RTOS], rtos_cmdline(interrupts))
        inside = {"/kvmrun": kvm.KVMRUN, "/linux": linux, "/rtos": rtos}
        with Outer(inside, _SCRIPT, memory=1024, cpu=cpu) as outer:
            result = outer.result(_TIMEOUT)
    return parse("KVM", "busy", "\n".join(result.lines) + "\n")


def document(meta: dict, rows: list[Latency], pause: int) -> dict:
    """The contents of latency.json."""
    return {"meta": meta, "gc_pause_max": pause, "goals": GOALS, "rows": [asdict(row) for row in rows]}


def table(document: dict) -> str:
    """The rows, as Markdown."""
    heads = ("system", "setting", "interrupts", "lost", "least", "median", "99.9 %", "most")
    heads += ("task: median", "most", "inexact", "collections", "waited for one")
    lines = ["| " + " | ".join(heads) + " | goal met |", "|" + "---|" * (len(heads) + 1)]
    for row in document["rows"]:
        met = ""
        if row["system"] == "pcanel":
            met = "yes" if all(row[key] <= goal for key, goal in document["goals"].items()) else "no"
        keys = ("count", "lost", "min", "median", "permille_999", "max", "task_median", "task_max", "inexact")
        keys += ("collections", "waited")
        figures = " | ".join("" if row[key] is None else f"{row[key]:,}" for key in keys)
        lines.append(f"| {row['system']} | {row['setting']} | {figures} | {met} |")
    versions = "; ".join(f"{key} {value}" for key, value in document["meta"].items())
    pause = f"{document['gc_pause_max']:,}"
    lines += ["", f"Tick of the guest: {HZ} Hz. A whole garbage collection, not preempted: {pause} ticks."]
    return "\n".join([*lines, "", f"Measured with: {versions}."])
