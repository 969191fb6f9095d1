"""The owner of a run hands the machine's memory to other processes of this user: a descriptor and a map, by a socket.

The engine is a child of the owner, so that the owner may open its /proc/PID/mem wherever processes may look into their
children (kernel.yama.ptrace_scope 0 and 1). The socket is local.listen()'s: this user's and root's alone.
"""

import json
import os
import socket
from pathlib import Path

from pcanel import local
from pcanel.errors import EngineError, PcanelError
from pcanel.ram.map import Ram, from_data, to_data

_LIMIT = 4096  # bytes of a map
_TIMEOUT = 30  # seconds
NAME = "memory.sock"


def answer(line: socket.socket, ram) -> None:
    """Sends a client what ram() returns, a (descriptor, Map), or why there is none. Closes both."""
    with line:
        line.settimeout(_TIMEOUT)
        try:
            descriptor, place = ram()
        except PcanelError as error:
            line.sendall(json.dumps({"error": str(error)}).encode())
            return
        try:
            socket.send_fds(line, [json.dumps(to_data(place)).encode()], [descriptor])
        finally:
            os.close(descriptor)


def connect(directory: Path) -> Ram:
    """The memory of the machine whose run has this directory. EngineError says why it cannot be had."""
    try:
        line = local.connect(directory / NAME)
    except OSError as error:
        raise EngineError(f"the run does not hand out its memory: {error.strerror}") from error
    with line:
        line.settimeout(_TIMEOUT)
        data, descriptors, _, _ = socket.recv_fds(line, _LIMIT, 1)
    said = json.loads(data or b'{"error": "the run has ended"}')
    if "error" in said:
        raise EngineError(said["error"])
    return Ram(descriptors[0], from_data(said))
