"""Programs that make disks and boot media, each with all that it starts: they end when this program is asked to end."""

import contextlib
import os
import signal
import subprocess

from pcanel.errors import PcanelError

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE = 20  # seconds in which a program that is told to end removes what it has made


def call(command: list[str], **options) -> subprocess.CompletedProcess:
    """As subprocess.run() does, in a session of its own and without input. An exception meanwhile, such as Ctrl-C or
    SIGTERM, ends all that runs in this session before it goes on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # while it starts it could not be ended
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before), **options,
        )  # fmt: skip
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    with process:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            said, errors = process.communicate()
        except BaseException:
            _end(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, said, errors)


def run(command: list[str], what: str) -> None:
    """Runs a program; PcanelError with its last words where it fails."""
    done = call(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise PcanelError(f"{what}: {words[-1] if words else f'status {done.returncode}'}")


def _end(process: subprocess.Popen) -> None:
    """Asks the whole session to end, and kills what has not ended."""
    _signal(process, signal.SIGTERM)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    finally:  # a second signal does not wait
        _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
