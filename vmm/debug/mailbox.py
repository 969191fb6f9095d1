"""The monitor's side of the mailbox: host tools send requests and get messages without the prompt (port/mailbox.c).

The host finds the mailbox in the machine's memory, which the engine makes accessible. A request runs between the
guests' turns, while the prompt or a sleep waits, as a line at the prompt would; a line that runs is not interrupted.
Messages of the monitor go into a ring that the host reads. On a PC it is not read.
"""

import io
import json
import struct
import sys

import cpu

from vmm.debug.mailbox_layout import (
    ANSWERED,
    ASK,
    ASK_AT,
    ASK_ROOM,
    ASK_SIZE,
    ASKED,
    HEAD,
    HOST,
    REPLIED,
    REPLY_AT,
    REPLY_ROOM,
    REPLY_SIZE,
    REQUEST_AT,
    REQUEST_SIZE,
    RING,
    RING_AT,
    RUNG,
    TAIL,
)


def _get(box, word):
    return struct.unpack_from("<I", box, 4 * word)[0]


def _put(box, word, value):
    struct.pack_into("<I", box, 4 * word, value & 0xFFFFFFFF)


def serve():
    """Answer the host's request: "=" and the value of an expression, "=" for statements, "!" and a traceback."""
    box = cpu.mailbox()
    size = min(_get(box, REQUEST_SIZE), REPLY_AT - REQUEST_AT)
    number = _get(box, RUNG)
    reply = _answer(str(box[REQUEST_AT : REQUEST_AT + size], "utf-8")).encode()
    if len(reply) > REPLY_ROOM:
        reply = b"!ValueError: the answer is longer than %d bytes" % REPLY_ROOM
    box[REPLY_AT : REPLY_AT + len(reply)] = reply
    _put(box, REPLY_SIZE, len(reply))
    _put(box, REPLIED, number)


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
    """Execute statements and return what they print. Names that they assign are not kept."""
    out = io.StringIO()
    names = dict(__import__("__main__").__dict__)
    names["print"] = lambda *values: out.write(" ".join([str(value) for value in values]) + "\n")
    exec(code, names)
    return out.getvalue()


def tell(event):
    """Put a dict into the ring of events; False where it is full or not read."""
    box = cpu.mailbox()
    data = json.dumps(event).encode() + b"\n"
    head = _get(box, HEAD)
    if not _get(box, HOST) or len(data) > RING - (head - _get(box, TAIL) & 0xFFFFFFFF):
        return False
    at = head % RING
    first = min(len(data), RING - at)
    box[RING_AT + at : RING_AT + at + first] = data[:first]
    box[RING_AT : RING_AT + len(data) - first] = data[first:]
    _put(box, HEAD, head + len(data))
    return True


def ask(what):
    """Have the owner of the run carry out a request, a dict, and return its answer; guests stand still meanwhile.

    ValueError where no host tools see the mailbox, or with the owner's reason; Ctrl-C ends it.
    """
    box = cpu.mailbox()
    if not _get(box, HOST):
        raise ValueError("no host tools see this machine's memory")
    data = json.dumps(what).encode()
    if len(data) > ASK_ROOM:
        raise ValueError("%d bytes are too many to ask" % len(data))
    box[ASK_AT : ASK_AT + len(data)] = data
    _put(box, ASK_SIZE, len(data))
    _put(box, ASK, ASKED)
    while _get(box, ASK) != ANSWERED:
        pass
    _put(box, ASK, 0)
    size = min(_get(box, ASK_SIZE), ASK_ROOM)
    said = str(box[ASK_AT : ASK_AT + size], "utf-8")
    if said[:1] == "!":
        raise ValueError(said[1:])
    return said[1:]


def write(what, vm, file, facts):
    """Have the host write a file about a guest; a relative path is one of the directory of `pcanel run`.

    what: "dump" or "screenshot", as pcanel's commands; facts(vm): what the command has to know.
    """
    if not _get(cpu.mailbox(), HOST):
        raise ValueError(
            "no host tools see this machine's memory: pcanel %s %s FILE --line DEVICE does" % (what, vm.name)
        )
    print(ask({"do": what, "file": str(file), "facts": facts(vm)}))
