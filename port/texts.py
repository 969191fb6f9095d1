"""Makes vmm/prompt/texts.py for the image: the docstrings of vmm/, which MicroPython drops.

    texts.py DIRECTORY NATIVE OUTPUT

NATIVE is a file of classes that say the same of what is written in C (native.py): its class Vcpu adds members to
"vmm.vtx.vcpu.Vcpu", each other one is a module, with functions.

One constant, TEXTS, that stays outside the heap: entries sorted by name, of modules ("vmm.vm"), classes ("vmm.vm.VM")
and functions ("vmm.memory.look.space"):

    (name, signature, text, for users, ((member, signature, text), ...))

Names with a leading "_" are left out. A member is a method or property with a docstring, or an attribute that is
assigned in the class with a comment behind it, which is its text. "for users" are the names of a paragraph of the
class's docstring that begins so:

    For users: start, pause, resume.

It is a tuple, empty where there is no such paragraph: then all members are for users.
"""

import ast
import re
import sys
from pathlib import Path

_USERS = re.compile(r"(?:^|\n\n)For users: ((?:[^\n]|\n(?!\n))*)")
_VCPU = "vmm.vtx.vcpu.Vcpu"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _signature(node):
    """Arguments as Python shows them, without self."""
    arguments = node.args
    decorators = {getattr(each, "id", "") for each in node.decorator_list}
    if arguments.args and arguments.args[0].arg in ("self", "cls") and "staticmethod" not in decorators:
        del arguments.args[0]
    for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        each.annotation = None
    return f"({ast.unparse(arguments)})"


def _is_property(node):
    return any(getattr(each, "id", "") == "property" for each in node.decorator_list)


def _is_setter(node):
    return any(getattr(each, "attr", "") == "setter" for each in node.decorator_list)


def _attributes(node, lines):
    """{name: text} of self.name = ...  # text, and of name = ...  # text in the class's body."""
    found = {}
    for part in ast.walk(node):
        if not isinstance(part, ast.Assign) or part.lineno != part.end_lineno:
            continue
        _, mark, comment = lines[part.lineno - 1][part.end_col_offset :].partition("#")
        for target in part.targets:
            name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "_")
            own = isinstance(target, ast.Name) and part in node.body or _is_own(target)
            if mark and own and not name.startswith("_") and not comment.startswith((" noqa", " fmt")):
                found.setdefault(name, comment.strip())
    return found


def _is_own(target):
    return isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"


def _class(name, node, lines):
    text = ast.get_docstring(node) or ""
    users = ()
    match = _USERS.search(text)
    if match:
        users = tuple(re.findall(r"\w+", match[1]))
        text = (text[: match.start()] + text[match.end() :]).strip()
    members = {name: (name, "", said) for name, said in _attributes(node, lines).items()}
    made = "()"
    for part in node.body:
        if not isinstance(part, _FUNCTIONS):
            continue
        if part.name == "__init__":
            made = _signature(part)
        said = ast.get_docstring(part)
        if said and not part.name.startswith("_") and not _is_setter(part):
            members[part.name] = (part.name, "" if _is_property(part) else _signature(part), said)
    return name, made, text, users, tuple(members[key] for key in sorted(members))


def native(path):
    """(members of the vCPU, entries) of what is written in C."""
    source = path.read_text()
    members, found = (), []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            name, _, text, _, its = _class(node.name, node, source.splitlines())
            if name == "Vcpu":
                members = its
                continue
            found.append((name, "", text, (), ()))
            found += [(f"{name}.{member}", signature, said, (), ()) for member, signature, said in its]
    return members, found


def entries(directory, file):
    """All entries of the package in a directory, and of what `file` says of C, sorted."""
    members, found = native(file)
    for path in directory.rglob("*.py"):
        module = ".".join(path.relative_to(directory.parent).with_suffix("").parts).removesuffix(".__init__")
        source = path.read_text()
        tree = ast.parse(source)
        lines = source.splitlines()
        found.append((module, "", ast.get_docstring(tree) or "", (), ()))
        for node in tree.body:
            name = f"{module}.{getattr(node, 'name', '_')}"
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                entry = _class(name, node, lines)
                if name == _VCPU:
                    own = {member[0] for member in entry[4]}
                    more = [member for member in members if member[0] not in own]
                    entry = (*entry[:4], tuple(sorted([*entry[4], *more])))
                found.append(entry)
            elif isinstance(node, _FUNCTIONS) and not node.name.startswith("_") and ast.get_docstring(node):
                found.append((name, _signature(node), ast.get_docstring(node), (), ()))
    return sorted(found)


def main():
    directory, file, output = map(Path, sys.argv[1:])
    text = f'"""Made by port/texts.py."""\n\nTEXTS = {entries(directory, file)!r}\n'.replace("TEXTS = [", "TEXTS = (")
    text = text[:-2] + ",)\n"
    if not output.is_file() or output.read_text() != text:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)


if __name__ == "__main__":
    main()
