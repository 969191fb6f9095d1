"""Tab: what fits at the end of a line.

    vms['li<Tab>          keys of what is indexed: guests, symbols, a dict's
    vm.symbols.do_<Tab>   attributes; those for users, others once their beginning is typed
    vm.on(IO, po<Tab>     events, their filters, arguments by name
    vm.break_at("do_<Tab> symbols, in a text that a method of a VM gets; also vm.on(CALL, at="do_<Tab>
    vm.on(SYSCALL, number="op<Tab>  system calls

A line is looked at, not run: names, attributes and keys that are written out are followed, calls are not. Limits: a
text within brackets that spans lines, and f-strings, are not looked into.
"""

import builtins

import cpu

from vmm.policies import events, general
from vmm.prompt import names
from vmm.prompt.texts import TEXTS

_MOST = 200  # that are shown, or asked from a guest's tables
_WORDS = (
    "and", "assert", "break", "class", "continue", "def", "del", "elif", "else", "except", "finally", "for", "from",
    "global", "if", "import", "in", "is", "lambda", "not", "or", "pass", "raise", "return", "try", "while", "with",
    "yield", "True", "False", "None",
)  # fmt: skip
_PAIRS = {")": "(", "]": "[", "}": "{"}


def complete(line, namespace):
    """The text that Tab inserts behind a line; True: several fit and are printed; None: MicroPython completes."""
    if line.startswith(("import ", "from ")):
        start, fitting, end = _modules(line)
        if fitting is None:
            return None
    else:
        start, fitting, end = candidates(line, namespace)
    typed = line[start:]
    fitting = sorted(set([name for name in fitting if name.startswith(typed)]))
    if not fitting:
        return ""
    same = common(fitting)
    if len(fitting) == 1:
        return same[len(typed) :] + ("" if same.endswith("=") else end)
    if len(same) > len(typed):
        return same[len(typed) :]
    print()
    print(columns(fitting[:_MOST], cpu.terminal()[1]))
    if len(fitting) >= _MOST:
        print("... and more")
    return True


def common(texts):
    """The common beginning of texts, which are sorted."""
    first, last = texts[0], texts[-1]
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]


def columns(texts, width):
    """Texts below each other in columns that fill a line of `width` characters."""
    wide = max([len(text) for text in texts]) + 2
    each = max(width // wide, 1)
    rows = (len(texts) + each - 1) // each
    form = "%%-%ds" % wide
    lines = []
    for row in range(rows):
        lines.append("".join([form % text for text in texts[row::rows]]).rstrip())
    return "\n".join(lines)


def scan(line):
    """(where the text begins that the line ends in, or -1, [(bracket, its place), ...] that are open)."""
    quote = ""
    text = -1
    opened = []
    i = 0
    while i < len(line):
        c = line[i]
        if quote:
            if c == "\\":
                i += 1
            elif c == quote:
                quote = ""
                text = -1
        elif c in "'\"":
            quote = c
            text = i + 1
        elif c == "#":
            return -1, []
        elif c in "([{":
            opened.append((c, i))
        elif c in _PAIRS and opened and opened[-1][0] == _PAIRS[c]:
            opened.pop()
        i += 1
    return text, opened


def _is_word(c):
    return c.isalpha() or c.isdigit() or c == "_"


def word_start(line, end):
    """Where the name that ends at `end` begins."""
    while end and _is_word(line[end - 1]):
        end -= 1
    return end


def chain_start(line, end):
    """Where the names, attributes and keys that end at `end` begin: of "print(vms['a'].vcpu", vms['a'].vcpu."""
    at = end
    while True:
        if at and line[at - 1] == "]":
            depth = 0
            back = at - 1
            while back >= 0:
                depth += (line[back] == "]") - (line[back] == "[")
                if not depth:
                    break
                back -= 1
            if back < 0:
                return end
            at = back
            continue
        start = word_start(line, at)
        if start == at:
            return end
        at = start
        if not (at and line[at - 1] == "."):
            return at
        at -= 1


def value_of(text, namespace):
    """(True, its value) of a chain; (False, None) where it has none. A chain with calls is none."""
    if not text or "(" in text:
        return False, None
    try:
        return True, eval(text, namespace)
    except Exception:
        return False, None


def candidates(line, namespace):
    """(where in the line the name begins, the names that there are, what stands behind one that is inserted)."""
    text, opened = scan(line)
    if text >= 0:
        return _in_text(line, text, opened, namespace)
    start = word_start(line, len(line))
    if start and line[start - 1] == ".":
        begin = chain_start(line, start - 1)
        found, value = value_of(line[begin : start - 1], namespace)
        return start, attributes(value, line[start:]) if found else (), ""
    if start == len(line) and not (opened and line[-1:] in "(,"):
        return start, list(namespace) if not line.strip() else (), ""
    fitting = [name for name in namespace if line[start:] or not name.startswith("_")]
    if opened and opened[-1][0] == "(":
        more, alone = _arguments(line, opened[-1][1], namespace)
        if alone or (more and start == len(line)):
            return start, more, ""
        fitting += more
    if line[start:]:
        fitting += [name for name in dir(builtins)] + list(_WORDS)
    return start, fitting, ""


def _in_text(line, text, opened, namespace):
    """Within quotes: a key, an event, or a symbol."""
    end = line[text - 1]
    typed = line[text:]
    if not opened:
        return text, (), ""
    bracket, at = opened[-1]
    before = line[at + 1 : text - 1].replace(" ", "")
    if bracket == "[" and len(opened) > 1 and line[:at].replace(" ", "").endswith("number="):
        bracket, at = opened[-2]  # a list of system calls
        before = "number="
    begin = chain_start(line, at)
    found, value = value_of(line[begin:at], namespace)
    if bracket == "[":
        if line[at + 1 : text - 1].strip():
            return text, (), ""
        return text, keys(value, typed) if found else (), end + "]"
    if not found or bracket != "(":
        return text, (), ""
    name = line[word_start(line, at) : at]
    if name == "on" and not before:
        return text, list(events.EVENTS), end
    dot = at - len(name) - 1
    found, owner = value_of(line[begin:dot], namespace) if dot > begin else (False, None)
    if found and typed and hasattr(owner, "symbols") and (name != "on" or before.endswith("at=")):
        return text, keys(owner.symbols, typed), end
    if found and typed and before.endswith("number="):
        return text, _system_calls(owner, typed), end
    return text, (), ""


def _system_calls(vm, typed):
    """Names of Linux's system calls."""
    from vmm.insight.linux import calls

    try:
        return calls.names(vm.kernel, typed, _MOST)
    except (ValueError, AttributeError):  # it runs no Linux, or is no VM
        return ()


def _modules(line):
    """As candidates(), of what is imported; None for the names where MicroPython knows them: its own modules."""
    start = max(line.rfind(" "), line.rfind(",")) + 1
    if line.startswith("from ") and " import " in line:
        module = line[5:].partition(" ")[0]
        try:
            value = __import__(module, None, None, ("*",))
        except Exception:
            return start, (), ""
        return start, [name for name in names.every(value) if not name.startswith("_")] + submodules(module), ""
    typed = line[start:]
    if "." not in typed:
        return start, None, ""
    package = typed[: typed.rfind(".")]
    return start + len(package) + 1, submodules(package), ""


def submodules(package):
    """Names of the modules in a package of the monitor's."""
    dot = len(package) + 1
    found = [known[0] for known in TEXTS if known[0].startswith(package + ".") and names.is_module(known)]
    return [name[dot:] for name in found if "." not in name[dot:]]


def _arguments(line, at, namespace):
    """(names within the brackets of a call, whether nothing else fits there)."""
    begin = chain_start(line, at)
    name = line[word_start(line, at) : at]
    inside = line[at + 1 :]
    if name == "on":
        first, comma, _ = inside.partition(",")
        if not comma:
            return [word for word in events.WORDS if word in namespace], True
        known, event = value_of(first.strip(), namespace)
        event = events.EVENTS.get(event) if isinstance(event, str) else event
        if known and event in events.EVENTS.values():
            last = inside.rpartition(",")[2]
            return [f.name + "=" for f in event.filters + general.FILTERS], "=" not in last
        return [], False
    found, value = value_of(line[begin:at], namespace)
    if not found:
        return [], False
    if isinstance(value, type):
        known = names.entry(names.full_name(value))
        signatures = [known[1]] if known else []
    else:
        signatures = [signature for _, signature, _ in names.function_entries(value)]
    named = set()
    for signature in signatures:
        for argument in signature[1:-1].split(","):
            argument = argument.partition("=")[0].strip()
            if argument and argument[0] != "*":
                named.add(argument + "=")
    return list(named), False


def attributes(value, typed):
    """Names behind a dot: those for users where one begins so, else all."""
    own = names.special(value, "complete_attributes")
    if own is not None:
        fitting = list(own(typed))
        if fitting:
            return fitting if typed else fitting + list(names.public(value))
    if isinstance(value, type) or isinstance(value, type(builtins)):
        return [name for name in names.every(value) if typed or not name.startswith("_")]
    fitting = [name for name in names.public(value) if name.startswith(typed)]
    if fitting and not typed.startswith("_"):
        return fitting
    return [name for name in names.every(value) if typed.startswith("_") or not name.startswith("_")]


def keys(value, typed):
    """Texts that index a value."""
    own = names.special(value, "complete_keys")
    if own is not None:
        return list(own(typed))
    if isinstance(value, dict):
        return [key for key in value if isinstance(key, str)]
    return ()
