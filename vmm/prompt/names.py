"""Which names an object has for users, and what is said of them (vmm/prompt/texts.py, which the build makes).

A class's docstring may list the names for users; else they are those that have a text. Other names are offered once
their beginning is typed.
"""

import sys

import cpu
import multiboot
import vmx

from vmm.prompt.texts import TEXTS
from vmm.vtx.vcpu import Vcpu

_MODULES = (cpu, multiboot, vmx)  # written in C
_SEARCHED = 4000  # objects in which the owner of a method is looked for
_MEMBERS = 256  # of a list or dict among them


def entry(name):
    """The entry of a module, class or function by its full name (port/texts.py), or None."""
    low, high = 0, len(TEXTS)
    while low < high:
        middle = (low + high) // 2
        if TEXTS[middle][0] < name:
            low = middle + 1
        else:
            high = middle
    return TEXTS[low] if low < len(TEXTS) and TEXTS[low][0] == name else None


def is_module(known):
    """Whether an entry is a module's."""
    return not known[1]


def full_name(cls):
    """ "vmm.vm.VM" of a class."""
    return "%s.%s" % (getattr(cls, "__module__", ""), cls.__name__)


def class_of(value):
    """The class whose names a value has: a vCPU's is written in Python."""
    return Vcpu if type(value) is vmx.VCPU else type(value)


def family(cls):
    """A class and those that it derives from, itself first."""
    found = [cls]
    for base in getattr(cls, "__bases__", ()):
        found += [other for other in family(base) if other not in found]
    return found


def public(value):
    """{name: (signature, text)} of what a value has for users; {} where nothing is known of its class."""
    found = {}
    for cls in reversed(family(class_of(value))):
        known = entry(full_name(cls))
        if known is None:
            continue
        users = known[3]
        texts = {name: (signature, text) for name, signature, text in known[4]}
        for name in users or texts:
            found[name] = texts.get(name) or found.get(name) or ("", "")
    return found


def every(value):
    """All names of a value, without evaluating one."""
    if isinstance(value, type(sys)) or isinstance(value, type):
        return list(value.__dict__) if hasattr(value, "__dict__") else dir(value)
    names = set()
    known = False
    for cls in family(class_of(value)):
        if cls is not object:
            inside = getattr(cls, "__dict__", None)
            known = known or (inside is not None and "__module__" in inside)
            names.update(inside or ())
    if not known:
        return dir(value)  # MicroPython's own types have no properties
    if type(value) is vmx.VCPU:
        names.update(vmx.names(value))
    else:
        names.update(getattr(value, "__dict__", ()))
    return list(names)


def listed(value):
    """The result of dir(): all names, of a guest's struct its members; nothing is evaluated."""
    own = special(value, "members_")
    return sorted(every(value) + (list(own()) if own is not None else []))


def special(value, kind):
    """The method `kind` where the value's class has one: complete_attributes, complete_keys, members_; else None."""
    for cls in family(class_of(value)):
        if kind in getattr(cls, "__dict__", ()):
            return getattr(value, kind)
    return None


def members(value):
    """{name: (signature, text)} of all members of a value's class with a text, also of those not for users."""
    found = {}
    for cls in reversed(family(class_of(value))):
        known = entry(full_name(cls))
        for name, signature, text in known[4] if known else ():
            found[name] = (signature, text)
    return found


def functions_of(module):
    """{name: (signature, text)} of a module that is written in C."""
    start = module.__name__ + "."
    return {known[0][len(start) :]: known[1:3] for known in TEXTS if known[0].startswith(start) and known[1]}


def of_module(function):
    """The full name of a function of a module that is written in C, or None. Such a function has no __name__."""
    for module in _MODULES:
        for name in dir(module):
            if getattr(module, name) is function:
                return "%s.%s" % (module.__name__, name)
    return None


def method(value):
    """(object, name) of a bound method without such attributes, viper's or C's; None for others."""
    try:
        each = cpu.self_of(value)
    except TypeError:
        return None
    for cls in family(class_of(each)):
        inside = getattr(cls, "__dict__", {})
        for name in inside:
            if name[:2] != "__" and callable(inside[name]) and getattr(each, name) == value:
                return each, name
    own = _attributes(each)
    for name in own:
        if type(own[name]) is type(value) and own[name] == value:
            return each, name
    return None


def holder(value, roots):
    """(object, name) of which a function is an attribute, or None. Searched are `roots` and what they refer to."""
    todo = list(roots)
    seen = set()
    classes = {}  # id: whether something is known of it
    at = 0
    while at < len(todo) and at < _SEARCHED:
        each = todo[at]
        at += 1
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, (list, tuple, dict)):
            todo += list(each.values() if isinstance(each, dict) else each)[:_MEMBERS]
            continue
        cls = class_of(each)
        if id(cls) not in classes:
            its = family(cls)
            classes[id(cls)] = any([entry(full_name(one)) for one in its])
            for name in _static(its):
                if getattr(each, name) is value:
                    return each, name
        own = _attributes(each) if classes[id(cls)] else {}
        for name in own:
            if own[name] is value:
                return each, name
            if not isinstance(own[name], (int, str, bytes)):
                todo.append(own[name])
    return None


def _static(classes):
    """The names of static methods."""
    found = []
    for cls in classes:
        inside = getattr(cls, "__dict__", {})
        found += [name for name in inside if name[:2] != "__" and isinstance(inside[name], staticmethod)]
    return found


def _attributes(value):
    """{name: value} of an object's own attributes, and of a vCPU's registers."""
    if type(value) is not vmx.VCPU:
        return getattr(value, "__dict__", {})
    found = {}
    for name in vmx.names(value):
        try:
            found[name] = getattr(value, name)
        except (ValueError, AttributeError, vmx.VmxError):
            pass  # this register cannot be read now
    return found


def function_entries(function):
    """[(full name, signature, text)] of what a function or method may be: those of its name in its module."""
    name = getattr(function, "__name__", None)
    module = getattr(function, "__globals__", {}).get("__name__") if name else None
    if not module or not module.startswith("vmm."):
        return []
    found = []
    for known in TEXTS:
        if known[0] == module + "." + name:
            found.append((known[0], known[1], known[2]))
        elif known[0].startswith(module + "."):
            for member, signature, text in known[4]:
                if member == name and signature:
                    found.append((known[0] + "." + name, signature, text))
    return found
