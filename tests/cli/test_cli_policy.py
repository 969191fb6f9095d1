"""`pcanel run GUEST.toml --policy FILE.py ...`, a policy file that is broken among them; soft reset."""

import json
import time
from pathlib import Path

import pytest
import vtx
from pcanel import local
from pcanel.assemble import assemble
from pcanel.errors import InputError
from pcanel.modules import policy

# CPUID leaf 40000000h's EBX goes to 500h.
GUEST = "mov eax, 0x40000000\ncpuid\nmov dword ptr [0x500], ebx\nhlt"
TOML = 'memory = "%dM"\nprotocol = "flat"\nkernel = "code"\naddress = 0x7c00\n'
GOOD = """
vm = vms['g']


@vm.on(CPUID, leaf=0x40000000)
def answer(vcpu):
    return Value((0, 0x1234, 0, 0))
"""
BROKEN = {
    "raises.py": "vms['nobody']\n",
    "not_micropython.py": "match 1:\n    case 1: pass\n",
    "leaves.py": "import sys\nsys.exit()\n",
}


ERRORS = ("KeyError", "SyntaxError", "SystemExit")


@pytest.fixture
def running(pcanel, runs, tmp_path):
    (tmp_path / "code").write_bytes(assemble(GUEST, 16, 0x7C00))
    (tmp_path / "g.toml").write_text(TOML % 128)
    for name, text in {**BROKEN, "good.py": GOOD}.items():
        (tmp_path / name).write_text(text)
    words = [word for name in (*BROKEN, "good.py") for word in ("--policy", tmp_path / name)]
    words += ["--engine", vtx.engine(), "--memory", "256", "--headless"]
    process = pcanel.start("run", tmp_path / "g.toml", *words)
    yield process
    process.terminate()
    said = process.communicate(timeout=30)[1]
    for name, error in zip(BROKEN, ERRORS, strict=True):  # nobody looks at the prompt of a headless run
        assert f"pcanel: policy file {name}:\nTraceback" in said and error in said


def test_policy_files(pcanel, running, runs):
    shown = "print(vms['g'].memory.read_u32(0x500), vms['g'].policies)"
    deadline = time.monotonic() + 60
    while not list(runs.glob("*/run.json")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    done = pcanel("exec", shown)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4660 [<policy answer on cpuid(leaf=0x40000000) of g: 1 hits>]\n"
    state = json.loads(next(runs.glob("*/run.json")).read_text())
    log = next(runs.glob("*/repl.log"))

    def told():
        text = log.read_text(errors="replace").replace("\r", "")
        for name, error in zip(BROKEN, ERRORS, strict=True):
            assert f"policy file {name}:\nTraceback" in text
            assert error in text
        return text.count("policy file raises.py")

    assert told() == 1

    # exec right after a soft reset: it waits until the guest has been built anew.
    with local.connect(Path(state["consoles"]["repl"]["socket"])) as line:
        line.settimeout(30)
        time.sleep(0.5)
        line.sendall(b"\x04")
        shown_after = b""
        while b"any other key stays." not in shown_after:
            shown_after += line.recv(4096)
        assert b"A soft reset destroys the guests g. Ctrl-D once more does it, any other key stays." in shown_after
        line.sendall(b"\x04")
        while b"soft reboot" not in shown_after:
            shown_after += line.recv(4096)
    done = pcanel("exec", "x = 1; import time; time.sleep(1)\n" + shown)
    assert done.stdout.startswith("4660 [<policy answer"), done.stdout + done.stderr
    assert told() == 2


def test_a_policy_file_that_fails_ends_a_run_that_waits_for_a_result(pcanel, tmp_path):
    (tmp_path / "raises.py").write_text("print('begins')\n1 / 0\n")
    (tmp_path / "good.py").write_text("print('good runs')\n")
    policies = [word for name in ("raises.py", "good.py") for word in ("--policy", tmp_path / name)]
    for until in (["--exec", "print('never')"], ["--until", ">>> $", "--timeout", "60"]):
        done = pcanel("run", "--engine", "qemu", "--headless", *policies, *until)
        assert (done.returncode, done.stdout) == (1, "")
        assert "pcanel run: policy file raises.py:\nTraceback" in done.stderr
        assert done.stderr.endswith('File "raises.py", line 2, in <module>\nZeroDivisionError: divide by zero\n')


def test_a_policy_file_that_is_no_python_is_refused_at_once(tmp_path):
    (tmp_path / "bad.py").write_text("def f(:\n")
    with pytest.raises(InputError, match=r"--policy: .*bad.py: .*line 1"):
        policy(tmp_path / "bad.py")
