"""The monitor's side of the mailbox: host tools send requests and get messages here, past the prompt (port/mailbox.c).

The host finds the mailbox in the machine's memory, which the engine makes accessible. A request runs between the
guests' turns, while the prompt or a sleep waits, as a line at the prompt would; a line that runs is not interrupted.
Messages of the monitor go into a ring that the host reads. On a PC it is not read.
"""

import io
import json
import struct
import sys

import cpu
from micropython import const

# Words; host-tools/pcanel/mailbox.py has the same
_RUNG = const(0)
_HOST = const(3)
_REQUEST_SIZE = const(4)
_REPLY_SIZE = const(5)
_REPLIED = const(6)  # the number of the request whose reply is there
_ASK = const(7)  # _NONE, _ASKED, _ANSWERED
_ASK_SIZE = const(8)
_HEAD = const(9)  # of the ring of events, bytes so far
_TAIL = const(10)
_ASKED = const(1)
_ANSWERED = const(2)

# Offsets and sizes in bytes
_ASK_AT = const(0x100)
_ASK_ROOM = const(0x3F00)
_REQUEST_AT = const(0x4000)
_REPLY_AT = const(0xC000)
_REPLY_ROOM = const(0xC000)
_RING_AT = const(0x18000)
_RING = const(0x8000)


def _get(box, word):
    return struct.unpack_from("<I", box, 4 * word)[0]


def _put(box, word, value):
    struct.pack_into("<I", box, 4 * word, value & 0xFFFFFFFF)


def serve():
    """Answer the host's request: "=" and the value of an expression, "=" for statements, "!" and a traceback."""
    box = cpu.mailbox()
    size = min(_get(box, _REQUEST_SIZE), _REPLY_AT - _REQUEST_AT)
    number = _get(box, _RUNG)
    reply = _answer(str(box[_REQUEST_AT : _REQUEST_AT + size], "utf-8")).encode()
    if len(reply) > _REPLY_ROOM:
        reply = b"!ValueError: the answer is longer than %d bytes" % _REPLY_ROOM
    box[_REPLY_AT : _REPLY_AT + len(reply)] = reply
    _put(box, _REPLY_SIZE, len(reply))
    _put(box, _REPLIED, number)


def _answer(text):
    namespace = __import__("__main__").__dict__
    try:
        try:
            code = compile(text, "<host>", "eval")
        except SyntaxError:
            exec(compile(text, "<host>", "exec"), namespace)
            return "="
        return "=" + repr(eval(code, namespace))
    except BaseException as error:
        out = io.StringIO()
        sys.print_exception(error, out)
        return "!" + out.getvalue()


def printed(code):
    """Execute statements and return what they print. Names that they make are gone afterwards."""
    out = io.StringIO()
    names = dict(__import__("__main__").__dict__)
    names["print"] = lambda *values: out.write(" ".join([str(value) for value in values]) + "\n")
    exec(code, names)
    return out.getvalue()


def tell(event):
    """Put a dict into the ring of events; False where it is full or not read."""
    box = cpu.mailbox()
    data = json.dumps(event).encode() + b"\n"
    head = _get(box, _HEAD)
    if not _get(box, _HOST) or len(data) > _RING - (head - _get(box, _TAIL) & 0xFFFFFFFF):
        return False
    at = head % _RING
    first = min(len(data), _RING - at)
    box[_RING_AT + at : _RING_AT + at + first] = data[:first]
    box[_RING_AT : _RING_AT + len(data) - first] = data[first:]
    _put(box, _HEAD, head + len(data))
    return True


def ask(what):
    """Have the owner of the run do something, and return what it says; guests stand still meanwhile.

    ValueError where no host tools see the mailbox, or with the owner's reason; Ctrl-C ends it.
    """
    box = cpu.mailbox()
    if not _get(box, _HOST):
        raise ValueError("no host tools see this machine's memory")
    data = json.dumps(what).encode()
    if len(data) > _ASK_ROOM:
        raise ValueError("%d bytes are too many to ask" % len(data))
    box[_ASK_AT : _ASK_AT + len(data)] = data
    _put(box, _ASK_SIZE, len(data))
    _put(box, _ASK, _ASKED)
    while _get(box, _ASK) != _ANSWERED:
        pass
    _put(box, _ASK, 0)
    size = min(_get(box, _ASK_SIZE), _ASK_ROOM)
    said = str(box[_ASK_AT : _ASK_AT + size], "utf-8")
    if said[:1] == "!":
        raise ValueError(said[1:])
    return said[1:]


def write(what, vm, file, facts):
    """Have the host write a file about a guest; a relative path is one of the directory of `pcanel run`.

    what: "dump", "screenshot", the commands of pcanel; facts(vm): what that has to know."""
    if not _get(cpu.mailbox(), _HOST):
        raise ValueError(
            "no host tools see this machine's memory: pcanel %s %s FILE --line DEVICE does" % (what, vm.name)
        )
    print(ask({"do": what, "file": str(file), "facts": facts(vm)}))
