"""drgn on the live guest and on its dump, beside what the guest's own /proc says."""

import contextlib
import io
import json
import signal
import subprocess
import sys

import pytest
from elftools.elf.elffile import ELFFile
from pcanel.cli import main
from pcanel.kernel.image import known
from pcanel.paths import ROOT
from pcanel.ram.guest import GuestMemory, ask
from pcanel.repl import RemoteError

_SEEN = r"""
import json
from drgn.helpers.linux import *
def text(data): return data.decode()
tasks = list(for_each_task(prog))
shell = find_task(prog, PID)
page = prog["PAGE_SIZE"].value_()
print(json.dumps({
    "tasks": {t.pid.value_(): [t.real_parent.tgid.value_(), task_state_to_char(t), text(t.comm.string_())]
              for t in tasks},
    "stack": [frame.name for frame in prog.stack_trace(find_task(prog, 1))],
    "running": [[frame.name for frame in prog.stack_trace(cpu_curr(prog, cpu))] for cpu in for_each_online_cpu(prog)],
    "mounts": [[text(mount_src(m)), text(mount_dst(m)), text(mount_fstype(m))] for m in for_each_mount(prog)],
    "files": {fd: text(d_path(file.f_path)) for fd, file in for_each_file(shell)},
    "areas": [[v.vm_start.value_(), v.vm_end.value_()] for v in for_each_vma(shell.mm)],
    "caches": len(list(for_each_slab_cache(prog))),
    "modules": [text(m.name.string_()) for m in for_each_module(prog)],
    "devices": [text(d.name.string_()) for d in for_each_netdev(prog["init_net"].address_of_())],
    "log": text(get_dmesg(prog)).count("\n"),
    "threads": len(list(prog.threads())),
}))
"""


def check(shell, guest, directory):
    """The two views agree; the dump has what the live guest has, and readelf's names in it."""
    pid = int(shell.run("echo $$"))
    code = _SEEN.replace("PID", str(pid), 1)
    proc = _proc(shell, pid)
    shell.monitor.wait_booted()  # others see a run only then
    run = shell.monitor.run.id
    live = json.loads(_pcanel("drgn", "--run", run, guest, "-e", code))
    assert shell.run("echo $((6 * 7))") == "42\n"  # it runs again

    lasting = {number for number, row in proc["tasks"].items() if not row[2].startswith(("kworker", "cat", "sh"))}
    seen = {int(number): row for number, row in live["tasks"].items()}
    assert len(lasting) > 20 and lasting <= set(seen)
    quiet = [number for number in lasting if "R" not in (seen[number][1], proc["tasks"][number][1])]
    assert {number: seen[number] for number in quiet} == {number: proc["tasks"][number] for number in quiet}
    assert live["stack"][0] == "__schedule" and live["stack"][-2].startswith("entry_SYSCALL_64")
    assert len(live["running"]) == 2 and all("cpu_startup_entry" in frames for frames in live["running"])
    assert [row[1:] for row in live["mounts"]] == proc["mounts"]
    files = {fd: live["files"].get(fd) for fd in proc["files"]}
    assert files == proc["files"], (files, proc["files"])
    assert live["areas"] == proc["areas"]
    assert live["caches"] == proc["caches"] > 20 and live["modules"] == proc["modules"]
    assert live["devices"] == ["lo"] and live["threads"] >= len(lasting)
    assert live["log"] == proc["log"]

    core = directory / "linux.core"
    said = _pcanel("dump", "--run", run, guest, str(core))
    assert "256 MiB" in said and "Linux 6.1.0" in said
    with core.open("rb") as file:
        elf = ELFFile(file)
        notes = [note["n_name"] for segment in elf.iter_segments("PT_NOTE") for note in segment.iter_notes()]
        loads = [(segment["p_paddr"], segment["p_filesz"]) for segment in elf.iter_segments("PT_LOAD")]
    assert elf.header["e_type"] == "ET_CORE" and notes == ["CORE", "CORE", "VMCOREINFO"] and loads == [(0, 256 << 20)]
    assert core.stat().st_blocks * 512 < 160 << 20  # pages of zeros are holes
    dead = json.loads(_pcanel("drgn", str(core), "-e", code))
    assert {key: dead[key] for key in ("mounts", "files", "areas")} == {
        key: live[key] for key in ("mounts", "files", "areas")
    }
    core.unlink()


def check_by_line(shell, guest):
    """By a serial line alone. Symbols, types and ORC are those of the kernel's file, which are those in memory: what
    travels is less than a tenth of them. Told to end, drgn lets the guest go on."""
    shell.monitor.wait_booted()
    facts = ask(shell.monitor.eval, guest)
    parts = known(facts.vmcoreinfo, [ROOT / "build/guests/full.vmlinux", ROOT / "build/guests/cloud.bzImage"])
    assert sum(len(data) for _, data in parts) > 9_000_000
    with shell.monitor.ram() as ram:
        memory = GuestMemory(ram, facts.segments)
        assert all(memory.read(gpa, len(data)) == data for gpa, data in parts)

    line = shell.monitor.url("repl")
    log = shell.monitor.console("repl").log
    before = log.stat().st_size
    code = "task = find_task(prog, 1); print(task.comm.string_(), [frame.name for frame in prog.stack_trace(task)][-2])"
    said = _pcanel("drgn", "--line", line, guest, "-e", code)
    assert said.startswith("b'init' entry_SYSCALL_64"), said
    assert log.stat().st_size - before < 900_000
    assert shell.monitor.eval(f"vms[{guest!r}].state") in ("running", "halted")

    code = "print(prog.symbol('_stext').name, flush=True); import time; time.sleep(600)"
    words = [sys.executable, "-m", "pcanel.cli", "drgn", "--line", line, guest, "-e", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "_stext\n"
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert shell.run("echo $((6 * 7))") == "42\n"


def check_run_meanwhile(shell, guest):
    """A guest that runs behind drgn's back: what drgn has read is old, and it says so. NULL is no per-CPU variable."""
    shell.monitor.wait_booted()
    code = """
import sys
print(find_task(prog, 1).comm.string_(), "irq_desc_tree" in prog, flush=True)
sys.stdin.readline()
try:
    prog.symbol(0x18)
except LookupError:
    print("NULL has no name", flush=True)
print(len(list(prog.threads())))
"""
    words = [sys.executable, "-m", "pcanel.cli", "drgn", "--run", shell.monitor.run.id, guest, "-e", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, **pipes, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "b'init' True\n"
        shell.monitor.exec(f"vms[{guest!r}].resume()")
        assert shell.run("echo $((6 * 7))") == "42\n"
        out, err = process.communicate("\n", timeout=60)
    assert out == "NULL has no name\n" and f"guest {guest} has run meanwhile: what was read before" in err, (out, err)
    assert shell.monitor.eval(f"vms[{guest!r}].state") in ("running", "halted")


def check_modules(shell, guest):
    """Types and functions of a module, which BTF's split section has."""
    shell.monitor.wait_booted()
    shell.run("insmod /loop.ko max_loop=2")
    code = """
from drgn.helpers.linux import *
idr = Object(prog, "struct idr", address=prog.symbol("loop_index_idr").address)
loops = [cast("struct loop_device *", entry) for _, entry in idr_for_each(idr)]
print([(loop.lo_number.value_(), loop.lo_disk.disk_name.string_().decode()) for loop in loops])
print(prog["Lo_bound"].value_(), prog["lo_ioctl"].type_.type.type_name())
"""
    said = _pcanel("drgn", "--run", shell.monitor.run.id, guest, "-e", code).splitlines()
    shell.run("rmmod loop")
    assert said == ["[(0, 'loop0'), (1, 'loop1')]", "1 int"], said


def check_dump_at_the_prompt(shell, guest, directory):
    """vm.dump() has the owner of the run write; errors are ValueErrors."""
    core = directory / "prompt.core"
    said = shell.monitor.exec(f"vms[{guest!r}].dump({str(core)!r})")
    assert said.startswith(f"{core}: 256 MiB, ") and "Linux 6.1.0" in said
    with core.open("rb") as file:
        assert ELFFile(file).num_segments() == 2
    core.unlink()
    with pytest.raises(RemoteError, match=f"ValueError: {directory}/no/x: No such file or directory"):
        shell.monitor.exec(f"vms[{guest!r}].dump({str(directory / 'no/x')!r})")


def check_refusals(shell, guest, directory):
    """One line each, and nothing is left behind."""
    shell.monitor.wait_booted()  # others see a run only then
    run = shell.monitor.run.id
    for words, line in (
        (("dump", "--run", run, "nobody", str(directory / "x")), "there is no guest nobody; there are: linux"),
        (("dump", "--run", run, guest, "/dev/full"), "/dev/full: is no file"),
        (("dump", "--run", run, guest, str(directory / "no/x")), f"{directory / 'no/x'}: No such file or directory"),
        (("drgn", "--run", run, "no body"), "'no body' cannot be a guest's name"),
    ):
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            assert main(list(words)) in (1, 2)
        assert said.getvalue().strip().splitlines()[-1].endswith(line), said.getvalue()
    assert list(directory.iterdir()) == []
    assert shell.run("echo $((6 * 7))") == "42\n"


def _proc(shell, pid):
    tasks = {}
    for line in shell.run("cat /proc/[0-9]*/stat").splitlines():
        number, _, rest = line.partition(" (")
        comm, _, rest = rest.rpartition(") ")
        state, parent = rest.split()[:2]
        tasks[int(number)] = [int(parent), state, comm[:15]]
    maps = shell.run(f"grep -v vsyscall /proc/{pid}/maps").splitlines()
    areas = [line.split()[0].split("-") for line in maps]
    links = [line.split(" -> ") for line in shell.run(f"ls -l /proc/{pid}/fd").splitlines() if " -> " in line]
    return {
        "tasks": tasks,
        "mounts": [line.split()[1:3] for line in shell.run("cat /proc/mounts").splitlines()],
        "areas": [[int(start, 16), int(end, 16)] for start, end in areas],
        # drgn does not say which are gone.
        "files": {left.split()[-1]: target.removesuffix(" (deleted)") for left, target in links},
        "caches": len(shell.run("cat /proc/slabinfo").splitlines()) - 2,
        "modules": [line.split()[0] for line in shell.run("cat /proc/modules").splitlines()],
        "log": int(shell.run("dmesg | wc -l")),
    }


def _pcanel(*words):
    result = subprocess.run(
        [sys.executable, "-m", "pcanel.cli", *words], capture_output=True, text=True, timeout=120, cwd=ROOT, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
