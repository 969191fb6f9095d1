"""Bad usage and bad input: exit status 2 and one line that says what is wrong."""

import os

import pytest

GUEST = """
name = "tiny"
memory = "1M"
protocol = "flat"
kernel = "tiny.bin"
address = 0x7c00
"""


def refused(done, *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


@pytest.fixture
def guest(tmp_path):
    (tmp_path / "tiny.bin").write_bytes(b"\xf4")
    path = tmp_path / "tiny.toml"
    path.write_text(GUEST)
    return path


def test_no_command(pcanel):
    refused(pcanel(), "COMMAND")


def test_unknown_command(pcanel):
    refused(pcanel("walk"), "walk")


def test_unknown_option(pcanel):
    refused(pcanel("run", "--fast"), "--fast")


def test_help_is_no_error(pcanel):
    done = pcanel("run", "--help")
    assert done.returncode == 0
    for option in ("--engine", "--cpu", "--memory", "--policy", "--module", "--headless", "--exec", "--until", "--on"):
        assert option in done.stdout


def test_unknown_engine(pcanel):
    refused(pcanel("run", "--engine", "vmware"), "--engine vmware", "auto", "bochs", "qemu")


def test_unknown_cpu_of_bochs(pcanel):
    refused(pcanel("run", "--engine", "bochs", "--cpu", "i486"), "--cpu i486", "corei7_skylake_x")


def test_memory_is_no_number(pcanel):
    refused(pcanel("run", "--memory", "lots"), "--memory", "lots")


def test_too_little_memory(pcanel):
    refused(pcanel("run", "--memory", "8"), "--memory 8")
    refused(pcanel("run", "--memory", "-1024"), "--memory -1024")


def test_more_memory_than_the_monitor_maps(pcanel):
    refused(pcanel("run", "--engine", "qemu", "--memory", "524289"), "--memory 524289", "524288")


def test_more_memory_than_bochs_takes(pcanel):
    refused(pcanel("run", "--engine", "bochs", "--memory", "4096"), "--memory 4096", "2048")


def test_guest_file_missing(pcanel, tmp_path):
    refused(pcanel("run", tmp_path / "none.toml"), "none.toml")


def test_guest_does_not_fit(pcanel, guest):
    guest.write_text(GUEST.replace("1M", "2G"))
    refused(pcanel("run", "--memory", "1024", guest), str(guest), "memory", "--memory")


def test_two_guests_of_one_name(pcanel, guest, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(GUEST)
    refused(pcanel("run", guest, other), str(other), "name", "'tiny'")


def test_two_guests_on_one_line(pcanel, guest, tmp_path):
    guest.write_text(GUEST + 'console = "com2"\n')
    other = tmp_path / "other.toml"
    other.write_text(GUEST.replace('"tiny"', '"other"') + 'console = "com2"\n')
    refused(pcanel("run", guest, other), str(other), "com2", "tiny")


def test_policy_missing(pcanel, tmp_path):
    refused(pcanel("run", "--policy", tmp_path / "none.py"), "--policy", "none.py")


def test_policy_that_does_not_parse(pcanel, tmp_path):
    policy = tmp_path / "bad.py"
    policy.write_text("def f(:\n")
    refused(pcanel("run", "--policy", policy), "--policy", "bad.py", "line 1")


def test_module_without_a_file(pcanel):
    refused(pcanel("run", "--module", "file:/boot.py"), "--module", "NAME=FILE")


def test_module_file_missing(pcanel, tmp_path):
    refused(pcanel("run", "--module", f"file:/boot.py={tmp_path}/none"), "file:/boot.py", "no such file")


def test_module_name_with_a_space(pcanel, guest):
    refused(pcanel("run", "--module", f"a b={guest}"), "'a b'")


def test_module_given_twice(pcanel, guest):
    refused(pcanel("run", "--module", f"a={guest}", "--module", f"a={guest}"), "'a'", "twice")


def test_option_without_a_value(pcanel):
    refused(pcanel("run", "--option", "fast"), "--option", "KEY=VALUE")


@pytest.mark.parametrize("value", ["", "lots", "-1", "16MB", "1.5G"])
def test_option_that_is_no_size(pcanel, value):
    refused(pcanel("run", "--option", f"heap={value}"), "--option", f"heap={value}", "16M")


def test_option_of_two_words(pcanel):
    refused(pcanel("run", "--option", "mitigations=of"), "--option 'mitigations=of'", "auto, off")


def test_bad_pattern(pcanel):
    refused(pcanel("run", "--until", "("), "--until")


def test_on_without_until(pcanel):
    refused(pcanel("run", "--on", "repl"), "--on")


def test_on_an_unknown_console(pcanel, guest):
    refused(pcanel("run", guest, "--until", "x", "--on", "linux"), "--on linux", "repl", "tiny")


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "inf"])
def test_bad_timeout(pcanel, seconds):
    refused(pcanel("run", "--timeout", seconds), "--timeout")
    refused(pcanel("exec", "--timeout", seconds, "1"), "--timeout")


def test_image_missing(pcanel, tmp_path):
    refused(pcanel("run", "--image", tmp_path / "none.elf"), "none.elf")


def test_image_that_is_none(pcanel, tmp_path):
    image = tmp_path / "some.elf"
    image.write_bytes(b"no ELF")
    refused(pcanel("run", "--image", image), str(image), "no ELF")


@pytest.mark.parametrize(
    ("protocol", "content", "words"),
    [
        ("linux", b"no kernel" * 100, "neither bzImage (HdrS at 0x202) nor ELF (at 0x0)"),
        ("linux", bytes(0x202) + b"HdrS" + bytes(0x100), "no boot flag AA55h, at offset 0x1fe"),
        ("linux", b"\x7fELF" + bytes(100), "neither ELF32 nor ELF64 little-endian, at offset 0x4"),
        ("multiboot", b"no kernel" * 100, "Multiboot: no header in the first 8192 bytes"),
        ("flat", bytes(0x20000), "outside guest RAM"),
    ],
)
def test_guest_image_that_cannot_be_loaded(pcanel, guest, protocol, content, words):
    (guest.parent / "tiny.bin").write_bytes(content)
    text = GUEST.replace('"flat"', f'"{protocol}"')
    guest.write_text(text.replace("0x7c00", "0x90000") if protocol == "flat" else text.replace("address", "# address"))
    refused(pcanel("run", guest), str(guest), "kernel", "tiny.bin", words)


def test_a_register_without_a_name(pcanel, guest):
    guest.write_text(GUEST + 'registers = { "" = 1 }\n')
    refused(pcanel("run", guest), f"{guest}: registers.: register '' is unknown in real mode")


def test_guest_file_that_is_a_directory(pcanel, tmp_path):
    refused(pcanel("run", tmp_path), str(tmp_path), "directory")


def test_modules_do_not_go_with_an_iso(pcanel, guest, tmp_path):
    iso = tmp_path / "some.iso"
    iso.write_bytes(b"\0")
    refused(pcanel("run", "--image", iso, guest), "some.iso", "none can be added")


def test_uefi_wants_qemu_and_an_iso(pcanel, tmp_path):
    refused(pcanel("run", "--engine", "bochs", "--uefi"), "--uefi")
    refused(pcanel("run", "--engine", "qemu", "--uefi"), "--uefi", "ISO")


@pytest.mark.parametrize("words", [("exec", "1"), ("repl",), ("console", "linux"), ("stop",)])
def test_no_monitor_is_running(pcanel, words):
    refused(pcanel(*words), "no monitor is running")


def test_status_without_a_monitor(pcanel):
    done = pcanel("status")
    assert (done.returncode, done.stdout) == (0, "no monitor is running\n")


def test_unknown_run(pcanel):
    refused(pcanel("stop", "--run", "0815"), "0815")


@pytest.mark.parametrize("kind, words", [("directory", "is a directory"), ("fifo", "is a FIFO, not a file")])
def test_what_is_no_file_is_called_what_it_is(pcanel, tmp_path, kind, words):
    path = tmp_path / "odd"
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    for arguments in ([path], ["--policy", path], ["--module", f"a={path}"], ["--image", path]):
        refused(pcanel("run", "--engine", "qemu", *arguments, "--exec", "1"), f"{path}: {words}")
