"""help(): texts from the docstrings, which the build puts into vmm/prompt/texts.py."""

import builtins

from vmm.policies import event as events
from vmm.prompt import names
from vmm.prompt.words import WORDS

# A filter's value in an example.
_SAMPLES = {
    "port": "0x3f8",
    "leaf": "1",
    "msr": "0x10",
    "gpa": "0x100000",
    "vector": "14",
    "number": "3",
    "write": "True",
    "instruction": "'lidt'",
    "counter": "0",
    "gva": "0xffffffff81000000",
    "symbol": "'do_sys_openat2'",
    "at": "'do_sys_openat2'",
    "where": "'do_sys_openat2'",
    "function": "'do_sys_openat2'",
    "name": "'openat'",
}
_USUAL = {"EXCEPTION": "vector", "CPUID": "leaf", "IO": "port", "CR": "number", "DESCRIPTOR_TABLE": "instruction"}


def tell(namespace, *args):
    """Print the help text: the general one without arguments, else that of the first argument."""
    if not args:
        builtins.help()
        return
    value = args[0]
    text = of(value)
    if text is None and callable(value):
        text = of_member(value, namespace)
    if text is None:
        builtins.help(*args)
    else:
        print(text)


def of(value):
    """The help text for an object, or None: only MicroPython's own help() knows it."""
    word = value if isinstance(value, str) else None
    if isinstance(value, (type, type(builtins))):
        word = getattr(value, "__name__", None)
    if word in WORDS:
        rows = _rows(names.functions_of(value)) if isinstance(value, type(builtins)) else []
        return "\n".join([WORDS[word]] + ([""] + rows if rows else []))
    if isinstance(value, str) and value != "modules":
        known = names.entry(value)
        return _paragraphs(known[0] + known[1], known[2]) if known else None
    if isinstance(value, events.Event):
        return event_help(value)
    if isinstance(value, type(builtins)):
        known = names.entry(value.__name__)
        return _paragraphs("module " + value.__name__, known[2]) if known else None
    if isinstance(value, type):
        known = names.entry(names.full_name(value))
        return _class_help(value, known) if known else None
    found = names.function_entries(value)
    if found:
        return "\n\n".join([_paragraphs(_short(name) + signature, text) for name, signature, text in found])
    cls = names.class_of(value)
    known = names.entry(names.full_name(cls))
    return _object_help(value, cls, known) if known else None


def of_member(value, namespace):
    """The help text for a function or method without __name__, by the object that holds it; None: none does."""
    found = names.method(value)
    name = None if found else names.of_module(value)
    if name is not None:
        known = names.entry(name)
        text = known[2] if known else "A function in C, for the monitor's own code."
        return _paragraphs(name + (known[1] if known else "()"), text)
    found = found or names.holder(value, list(namespace.values()))
    if found is None:
        return None
    each, name = found
    signature, text = names.members(each).get(name, ("", ""))
    title = "%s.%s%s" % (names.class_of(each).__name__, name, signature)
    return _paragraphs(title, text or "For the monitor's own code.")


def _short(name):
    """ "VM.on" of "vmm.vm.VM.on"."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-2][:1] >= "A" and parts[-2][:1] <= "Z" else name


def _paragraphs(title, text):
    return title + "\n\n    " + text.replace("\n", "\n    ")


def _rows(found):
    lines = []
    for name in sorted(found):
        signature, text = found[name]
        head = name + signature
        lines.append("  %-22s %s" % (head, text.partition("\n")[0]) if text else "  " + head)
    return lines


def _class_help(cls, known):
    found = {}
    for each in reversed(names.family(cls)):
        entry = names.entry(names.full_name(each))
        if entry:
            texts = {name: (signature, text) for name, signature, text in entry[4]}
            for name in entry[3] or texts:
                found[name] = texts.get(name) or found.get(name) or ("", "")
    return "\n".join([_paragraphs("class %s%s" % (cls.__name__, known[1]), known[2]), ""] + _rows(found))


def _object_help(value, cls, known):
    """The help text for an object: its class's, with its names for users."""
    return "\n".join([_paragraphs(cls.__name__, known[2]), ""] + _rows(names.public(value)))


def event_help(event):
    """The help text for an event: what it is, its filters, and an example that can be pasted."""
    word = event.name.upper()
    by_name = {f.name: f for f in event.filters}
    chosen = [name for name in by_name if by_name[name].required]
    usual = _USUAL.get(word)
    if not chosen and usual in by_name:
        chosen = [usual]
    elif not chosen and event.filters and event.filters[0].name in _SAMPLES:
        chosen = [event.filters[0].name]
    filters = "".join([", %s=%s" % (name, _SAMPLES.get(name, "...")) for name in chosen])
    return "\n".join([
        repr(event),
        "",
        "A policy is a function of the vCPU; what it returns is the verdict: None or DEFAULT (as without it),",
        "HANDLED, SKIP, RETRY, PAUSED, Inject(vector, error), Value(number).",
        "",
        "    @vm.on(%s%s)" % (word, filters),
        "    def watch(vcpu):",
        "        print(hex(vcpu.rip))",
        "",
        "watch.hits counts the calls, watch.detach() takes it off.",
    ])  # fmt: skip
