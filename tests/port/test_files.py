"""The file system, boot.py and main.py, and mpremote's commands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pcanel.cli import main

MPREMOTE = Path(sys.executable).with_name("mpremote")


def mpremote(machine, *arguments, timeout=60):
    """Runs mpremote on the machine's prompt and returns what it printed."""
    command = [MPREMOTE, "connect", machine.url("repl"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def test_boot_modules_become_files(fresh):
    big = bytes(range(256)) * 4000
    machine = fresh(modules={"file:/lib/pack/tool.py": b"X = 7\n", "file:/big": big, "file:/empty": b""})
    printed = machine.exec(
        "import os, hashlib, binascii, pack.tool\n"
        "print(pack.tool.X, os.stat('/big')[6], os.stat('/empty')[6])\n"
        "print(sum(open('/big', 'rb').read()))"
    )
    assert printed.split() == ["7", str(len(big)), "0", str(sum(big))]


def test_boot_then_main(fresh):
    machine = fresh(
        modules={"file:/boot.py": b"print('boot runs')\nA = 1\n", "file:/main.py": b"print('main runs', A + 1)\n"}
    )
    text = machine.console("repl").text()
    assert re.search(r"boot runs\nmain runs 2\n(.*\n)*>>> ", text)
    assert machine.exec("print(A)").strip() == "1"


def test_soft_reset(fresh):
    machine = fresh(modules={"file:/boot.py": b"print('boot again')\n"})
    machine.exec("open('/kept', 'w').write('still here')\nX = bytearray(5000000)")
    console = machine.console("repl")
    console.send("\x04")
    console.expect("soft reboot", 10)
    console.expect("boot again", 30)
    console.expect(rb"^>>> ", 30)
    printed = machine.exec(
        "import gc\ngc.collect()\nprint('X' in globals(), gc.mem_alloc() < 4000000, open('/kept').read())"
    )
    assert printed.strip() == "False True still here"


def test_file_system(monitor):
    printed = monitor.exec(
        "import os\n"
        "os.mkdir('/d')\n"
        "with open('/d/a long name.txt', 'w') as f: f.write('x' * 100000)\n"
        "os.rename('/d/a long name.txt', '/d/b')\n"
        "print(os.listdir('/d'), os.stat('/d/b')[6])\n"
        "os.remove('/d/b')\nos.rmdir('/d')\nprint(os.statvfs('/')[3] > 1000)"
    )
    assert printed.split() == ["['b']", "100000", "True"]


def test_closed_by_the_collector(monitor):
    """It closes with the heap locked, so the disk must not allocate."""
    printed = monitor.exec(
        "import gc, os\n"
        "for i in range(8): open('/left%d' % i, 'w').write('open')\n"
        "gc.collect()\n"
        "print(sum(os.stat('/left%d' % i)[6] == 4 for i in range(8)) >= 6)"
    )
    assert printed.strip() == "True"


def test_mpremote_exec_and_run(monitor, files):
    script = files / "script.py"
    script.write_text("import sys\nprint('runs on', sys.platform)\n")
    assert mpremote(monitor, "exec", "print(6 * 7)").strip() == "42"
    assert mpremote(monitor, "run", script).strip() == "runs on pcanel"


def test_mpremote_resume_keeps_state(monitor):
    mpremote(monitor, "resume", "exec", "STATE = 5")
    assert mpremote(monitor, "resume", "exec", "print(STATE)").strip() == "5"


def test_mpremote_cp(monitor, files):
    there, back = files / "there.bin", files / "back.bin"
    there.write_bytes(bytes(range(256)) * 64)
    mpremote(monitor, "cp", there, ":/there.bin")
    mpremote(monitor, "cp", ":/there.bin", back)
    assert back.read_bytes() == there.read_bytes()
    assert "there.bin" in mpremote(monitor, "ls")


def test_mpremote_mount(monitor, files):
    (files / "mounted.py").write_text("ANSWER = 'from the host'\n")
    assert "from the host" in mpremote(monitor, "mount", files, "exec", "import mounted; print(mounted.ANSWER)")


def test_mpremote_soft_reset_and_reset(fresh):
    machine = fresh()
    machine.exec("open('/kept', 'w').write('x')\nSTATE = 5")
    mpremote(machine, "soft-reset")
    assert mpremote(machine, "resume", "exec", "import os; print(os.listdir('/'), 'STATE' in globals())") == (
        "['kept'] False\n"
    )
    console = machine.console("repl")
    console.expect(">>> ", 10)
    mpremote(machine, "reset")
    console.expect("^Pcanel/Py on ", 60)
    console.expect(rb"^>>> ", 60)
    assert machine.exec("import os\nprint(os.listdir('/'))").strip() == "[]"


def test_pcanel_cp_copies_past_the_line(fresh, files, capsys):
    machine = fresh()
    machine.wait_booted()
    data = bytes(range(256)) * 4096 + b"end"
    (files / "there").write_bytes(data)
    run = machine.run.id
    for words in (
        (str(files / "there"), ":/copied"),
        (":/copied", str(files / "back")),
        (":/copied", str(files)),
    ):
        assert main(["cp", "--run", run, *words]) == 0, capsys.readouterr()
    assert (files / "back").read_bytes() == data == (files / "copied").read_bytes()
    (files / "nothing").write_bytes(b"")
    assert main(["cp", "--run", run, str(files / "nothing"), ":"]) == 0
    assert machine.eval("open('nothing', 'rb').read()") == b""
    capsys.readouterr()
    for words, line in (
        ((":/no", str(files / "x")), "OSError: [Errno 2] ENOENT"),
        ((":/copied", str(files / "no/x")), "No such file or directory"),
        (("a", "b"), "one of SOURCE and TARGET is :PATH, a file of the monitor's"),
    ):
        assert main(["cp", "--run", run, *words]) in (1, 2)
        assert capsys.readouterr().err.strip().endswith(line)
    missing = str(files / "missing")  # a source that cannot be read leaves the target as it is
    machine.exec("from vmm.debug import copying")
    fetch = f"copying.fetch({missing!r}, '/copied')"
    said = machine.exec(f"try:\n    {fetch}\nexcept ValueError as error:\n    print(error)")
    assert "No such file or directory" in said
    assert machine.eval("len(open('copied', 'rb').read())") == len(data)
