"""How the prompt shows the value of a line: addresses in hexadecimal, containers in rows, objects by their names.

A number from 65536 up has its hexadecimal form beside it, and the symbol that it lies in, once a guest's symbols have
been used. Numbers in lists and tuples, and a dict's keys, are hexadecimal, of its values only kernel addresses; and
what is longer than a line is below each other, sorted. A text of several lines is printed as it is. An object without
a repr of its own is its names for users with their values. All of that is the friendly prompt's alone: print() and
repr() are unchanged, and integers stay integers.
"""

import cpu

from vmm.prompt import names

_SMALL = 0x10000
_ADDRESS = 1 << 47  # lowest of a dict's values in hexadecimal: smaller ones are mostly counts and ticks
_DEEP = 4  # levels of lists and dicts
_ITEMS = 1000
_WIDE = 100  # characters of one attribute's value


def shown(value):
    """The text for a value; None: its repr serves."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return "%d = %#x%s" % (value, value, _symbol(value)) if abs(value) >= _SMALL else None
    if type(value) is str:
        return value if "\n" in value.lstrip("\n").rstrip("\n") else None  # strip() visits each character
    if type(value) in (list, tuple, dict):
        return _container(value, cpu.terminal()[1])
    if any(["__str__" in getattr(cls, "__dict__", ()) for cls in names.family(type(value))]):
        return str(value)
    text = repr(value)
    if text.startswith("<") and " object at " in text:
        return described(value)
    return text


def _symbol(value):
    """ " name+offset [guest]" of a kernel's address, of those guests whose symbols have been used."""
    if value < _ADDRESS:
        return ""
    import __main__

    monitor = getattr(__main__, "monitor", None)
    found = []
    for vm in monitor.vms.values() if monitor is not None else ():
        name = vm.name_of(value)
        if name:
            found.append((vm.name, name))
    return ",".join([name if len(found) == 1 else "%s [%s]" % (name, guest) for guest, name in found])


def brief(value, depth=0, small=_SMALL):
    """One line for a value within another one; numbers from `small` up are hexadecimal."""
    if isinstance(value, int) and not isinstance(value, bool):
        return "%#x" % value if abs(value) >= small else str(value)
    if depth < _DEEP:
        if type(value) is list:
            return "[%s]" % ", ".join([brief(item, depth + 1, small) for item in value])
        if type(value) is tuple:
            items = ", ".join([brief(item, depth + 1, small) for item in value])
            return "(%s%s)" % (items, "," if len(value) == 1 else "")
        if type(value) is dict:
            hexadecimal = _numbers(value)
            pairs = [(_key(key, hexadecimal), brief(value[key], depth + 1, _ADDRESS)) for key in ordered(value)]
            return "{%s}" % ", ".join(["%s: %s" % pair for pair in pairs])
    return repr(value)


def ordered(keys):
    """Keys sorted, or as they come where they cannot be compared."""
    try:
        return sorted(keys)
    except TypeError:
        return list(keys)


def _numbers(keys):
    return all([isinstance(key, int) or type(key) is tuple and key and isinstance(key[0], int) for key in keys])


def _key(key, hexadecimal):
    if hexadecimal and isinstance(key, int):
        return "%#x" % key
    if hexadecimal and type(key) is tuple:
        return "(%s)" % ", ".join([_key(part, isinstance(part, int) and not isinstance(part, bool)) for part in key])
    return brief(key)


def _container(value, width):
    if len(value) > _ITEMS:
        return None
    line = brief(value)
    if len(line) < width and "\n" not in line:
        return line
    if type(value) is dict:
        return "{\n%s\n}" % "\n".join(_rows(value, width, "    "))
    opening, closing = ("[", "]") if type(value) is list else ("(", ")")
    return "%s\n%s\n%s" % (opening, "\n".join(["    %s," % brief(item) for item in value]), closing)


def _rows(table, width, indent):
    hexadecimal = _numbers(table)
    rows = []
    for key in ordered(table):
        item = table[key]
        row = "%s%s: %s," % (indent, _key(key, hexadecimal), brief(item, 0, _ADDRESS))
        if type(item) is dict and item and len(row) >= width // 2:
            rows.append("%s%s: {" % (indent, _key(key, hexadecimal)))
            rows += _rows(item, width, indent + "    ")
            rows.append("%s}," % indent)
        else:
            rows.append(row)
    return rows


def described(value):
    """An object's names for users, one a line: with an attribute's value, a method's first line of help."""
    cls = names.class_of(value)
    known = names.entry(names.full_name(cls))
    if known is None:
        return repr(value)
    lines = ["%s: %s" % (cls.__name__, known[2].partition("\n")[0])]
    found = names.public(value)
    for name in sorted(found):
        signature, text = found[name]
        if signature:
            lines.append("  %s%s  %s" % (name, signature, text.partition("\n")[0]))
        else:
            try:
                what = brief(getattr(value, name))
            except Exception as error:
                what = "%s: %s" % (type(error).__name__, error)
            what = what.partition("\n")[0]
            lines.append("  %-14s %s" % (name, what if len(what) <= _WIDE else what[: _WIDE - 3] + "..."))
    return "\n".join(lines)
