"""Runs MicroPython's own test suite on the image, under QEMU without KVM.

    python tests/port/micropython_suite.py [--via-mpy] [--emit native] [--all]

The runner is the fetched tree's tests/run-tests.py, unchanged; the machine's COM1 is
QEMU's standard input and output. Every skip must have a reason in REASONS, or the
result is a failure. `--all` does the three passes that the project promises.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIRECTORIES = ("basics", "micropython", "misc", "extmod", "float", "stress", "unicode")
PASSES = ((), ("--via-mpy",), ("--via-mpy", "--emit", "native"))

LEVEL = "not part of MicroPython's extra-features level"
NO_NETWORK = "the monitor has no network"
UNBOUND = "native code does not check for unbound locals"
RAISE = "the native emitter has no raise with several arguments"
LINES = "native code has no line numbers"

# Reason of each skip: a regular expression over the test's path, the reason, and the
# flag that it needs to apply (None: any pass). The first that fits counts.
REASONS = (
    (r"basics/builtin_range_binop", "range(1) != range(1): " + LEVEL, None),
    (r"basics/class_inplace_op2", "in-place special methods: " + LEVEL, None),
    (r"basics/exception_chain", "the runner excludes it except on a PC", None),
    (r"basics/fun_code|native_fun_attrs_code", "function.__code__: " + LEVEL, None),
    (r"basics/memoryview_itemsize", "memoryview.itemsize: " + LEVEL, None),
    (r"basics/namedtuple_asdict", "namedtuple._asdict: " + LEVEL, None),
    (r"basics/nanbox_smallint", "for builds with boxed NaNs only", None),
    (r"basics/sys_getsizeof", "sys.getsizeof: " + LEVEL, None),
    (r"basics/sys_path", "tests run from standard input, and have no __file__", None),
    (r"basics/sys_tracebacklimit", "sys.tracebacklimit: " + LEVEL, None),
    (r"extmod/btree", "the btree database is not built in", None),
    (r"extmod/cryptolib", "cryptolib is not built in", None),
    (r"extmod/deflate_(compress|stream_error)", "deflate compression: " + LEVEL, None),
    (r"extmod/hashlib_(md5|sha1)", "only SHA-256 is built in: " + LEVEL, None),
    (r"extmod/machine_(i2s|spi|rtc|pulse|soft_timer|disable_irq)", "the machine has no such part", None),
    (r"extmod/machine_uart", "for boards whose UART pins it knows", None),
    (r"extmod/marshal", "marshal: " + LEVEL, None),
    (r"extmod/re_debug", "re.DEBUG: " + LEVEL, None),
    (r"extmod/(select_|socket_|ssl_|tls_|websocket_)", NO_NETWORK, None),
    (r"extmod/vfs_(blockdev|lfs)", "littlefs is not built in: the RAM disk is FAT", None),
    (r"extmod/vfs_posix", "for ports on a POSIX system", None),
    (r"extmod/vfs_rom", "there is no ROM file system", None),
    (r"micropython/(heapalloc_bytesio2|memstats)", "allocation statistics: " + LEVEL, None),
    (r"micropython/meminfo", "the runner excludes it except on a PC", None),
    (r"misc/cexample", "for builds with MicroPython's example C module", None),
    (r"basics/(annotate_var|del_deref|del_local|scope_implicit|unboundlocal)", UNBOUND, "--emit"),
    (r"basics/(gen_yield_from_close|try_finally_return2|try_reraise)", RAISE, "--emit"),
    (r"misc/features", RAISE, "--emit"),
    (r"micropython/(emg_exc|heapalloc_traceback|opt_level_lineno)", LINES, "--emit"),
    (r"misc/print_exception", LINES, "--emit"),
    (r"micropython/schedule", "native code does not check for scheduled callbacks", "--emit"),
    (r"stress/bytecode_limit", "about bytecode", "--emit"),
    (r"misc/sys_(atexit|exc_info|settrace)", "sys.atexit, exc_info, settrace: " + LEVEL, None),
)

# Left out of a pass that has the flag: pattern, flag, reason.
EXCLUDED = ((r"unicode/file", "--via-mpy", "the runner mounts a file system that holds the test only"),)


@dataclasses.dataclass
class Result:
    """Counts of one pass, and its tests by outcome."""

    passed: list
    failed: list
    skipped: list
    output: str
    again: list = dataclasses.field(default_factory=list)  # passed at the second try

    @property
    def ran(self):
        return len(self.passed) + len(self.failed)


def machine(image, micropython, directory, counted):
    """Shell command of the machine, with what the tests need in its file system.

    counted: its time is that of its instructions, whatever else the host does; it then takes a CPU of the host also
    while it waits for the runner.
    """
    files = {"lib/unittest.py": ROOT / "tests/port/lib/unittest.py", "boot.py": ROOT / "tests/port/lib/boot.py"}
    for path in sorted((micropython / "tests/unicode/data").iterdir()):
        files[f"data/{path.name}"] = path
    # QEMU gives a boot module its path as its name, so that has to begin with file:/
    for name, path in files.items():
        link = directory / "file:" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    modules = ",".join(f"file:/{name}" for name in files)
    return (
        f"cd {directory} && exec qemu-system-x86_64 -accel tcg{' -icount shift=0,sleep=off' * counted} -cpu max -m 256"
        f" -nodefaults -display none -no-reboot -serial stdio -kernel {image} -initrd {modules}"
    )


def run(image, micropython, mpy_cross, results, flags=(), tests=(), timeout_s=2400, counted=True):
    """One pass of the suite; `tests` are paths in the tests directory (default: all); counted: see machine()."""
    with tempfile.TemporaryDirectory(prefix="pcanel-suite-") as directory:
        command = [sys.executable, "run-tests.py", "-r", str(results)]
        command += ["-t", "exec:" + machine(image, micropython, pathlib.Path(directory), counted), *flags]
        for pattern, flag, _ in EXCLUDED:
            command += ["-e", pattern] if flag in flags else []
        command += list(tests) or ["-d", *DIRECTORIES]
        environment = {**os.environ, "MICROPY_MPYCROSS": str(mpy_cross)}
        process = subprocess.Popen(
            command,
            cwd=micropython / "tests",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the machine, which outlives a runner that is stopped
    return parse(output)


def run_twice(*args, **kwargs):
    """As run() by the host's time, but tests that fail get a second try, by counted time.

    Where a test has no file of expected output the runner asks CPython, on this host: of
    a test about time it then expects what a busy host made of it.
    """
    result = run(*args, **kwargs, counted=False)
    if result.failed:
        second = run(*args, **{**kwargs, "tests": result.failed})
        result.again = second.passed
        result.passed += second.passed
        result.failed = [path for path in result.failed if path not in second.passed]
    return result


def parse(output):
    """The runner prints one line a test: its outcome, then its path."""
    outcomes = {"pass": [], "FAIL": [], "skip": []}
    for word, path in re.findall(r"^(pass|FAIL|skip) +(\S+)", output, re.MULTILINE):
        outcomes[word].append(path)
    return Result(outcomes["pass"], outcomes["FAIL"], outcomes["skip"], output)


def reason(path, flags):
    """Why a test is skipped, or None if nobody has said."""
    for pattern, text, wanted in REASONS:
        if (not wanted or wanted in flags) and re.search(pattern, path):
            return text
    return None


def report(result, flags):
    """Prints counts, failures and the reason of every skip; returns the exit status."""
    unexplained = [path for path in result.skipped if reason(path, flags) is None]
    name = " ".join(flags) or "plain"
    print(
        f"{name}: {result.ran} run, {len(result.passed)} passed, {len(result.failed)} failed,"
        f" {len(result.skipped)} skipped"
    )
    for path in result.skipped:
        print(f"  skip {path}: {reason(path, flags) or 'NO REASON KNOWN'}")
    for path in result.again:
        print(f"  passed at the second try: {path}")
    for pattern, flag, text in EXCLUDED:
        if flag in flags:
            print(f"  left out {pattern}*: {text}")
    for path in result.failed:
        print(f"  FAIL {path}")
    finished = re.search(r"^\d+ tests performed", result.output, re.MULTILINE)
    if not finished:
        print(result.output[-2000:])
    return 0 if finished and not result.failed and not unexplained else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=pathlib.Path, default=ROOT / "build/pcanel.elf")
    parser.add_argument("--micropython", type=pathlib.Path, default=ROOT / "build/micropython")
    parser.add_argument("--mpy-cross", type=pathlib.Path, default=ROOT / "build/mpy-cross/mpy-cross")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "build/suite")
    parser.add_argument("--via-mpy", action="store_true", help="compile on the host first")
    parser.add_argument("--emit", choices=("native",), help="compile to machine code")
    parser.add_argument("--all", action="store_true", help="the plain pass, --via-mpy, and native")
    parser.add_argument("tests", nargs="*", help="paths below the tests directory")
    args = parser.parse_args()
    chosen = ("--via-mpy",) * args.via_mpy + (("--emit", args.emit) if args.emit else ())
    status = 0
    for flags in PASSES if args.all else (chosen,):
        results = args.results / ("-".join(flags).replace("--", "") or "plain")
        results.mkdir(parents=True, exist_ok=True)
        result = run_twice(args.image, args.micropython, args.mpy_cross, results, flags=flags, tests=args.tests)
        (results / "output.txt").write_text(result.output)
        status |= report(result, flags)
    return status


if __name__ == "__main__":
    sys.exit(main())
