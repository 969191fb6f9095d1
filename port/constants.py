"""Constants of other modules, put in as numbers before a module is frozen.

MicroPython knows the value of a `const` in the module that declares it only; anywhere else the name is a global that
is looked up each time, and an object to viper. So that no number is copied, freeze.py has imports like this one
resolved before a module is compiled:

    from vmm.vtx.frame import DIRTY, PENDING

and attributes of modules that are imported so, `frame.DIRTY`. Where vmm/vtx/frame.py says `DIRTY = const(...)`, the
name leaves the import and each use of it becomes the number. Lines keep their numbers. A module that binds such a name
anew is refused.
"""

import ast
import os
from functools import cache


class ConstantError(Exception):
    """A constant cannot be put in: says where and why."""


class Tree:
    """Modules below a directory, `top`, by their dotted names."""

    def __init__(self, top):
        self._top = top
        self.value = cache(self._value)
        self._asked = set()

    def path(self, module):
        """The file of a module, or None where the tree has none."""
        stem = os.path.join(self._top, *module.split("."))
        for path in (stem + ".py", os.path.join(stem, "__init__.py")):
            if os.path.isfile(path):
                return path
        return None

    def _value(self, module, name):
        """Return the integer that a module declares under a name with const(), or imports; None where it is none."""
        path = self.path(module)
        if path is None or (module, name) in self._asked:
            return None
        self._asked.add((module, name))  # a submodule's name leads back to its package
        for node in reversed(_parse(path).body):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if name == (alias.asname or alias.name) and not node.level:
                        return self.value(node.module, alias.name)
            elif isinstance(node, ast.Assign) and _is_const(node.value) and node.targets[0].id == name:
                return self._evaluate(module, node)
        return None

    def _evaluate(self, module, node):
        expression = ast.Expression(node.value.args[0])
        names = {part.id for part in ast.walk(expression) if isinstance(part, ast.Name)}
        values = {name: self.value(module, name) for name in names}
        try:
            value = eval(compile(expression, module, "eval"), {"__builtins__": {}}, values)
        except Exception as error:
            raise ConstantError(f"{self.path(module)}:{node.lineno}: {error}") from None
        return value if isinstance(value, int) else None

    def imported(self, node):
        """Return {name here: integer} of the constants that `from ... import` brings."""
        if node.level or self.path(node.module) is None:
            return {}
        values = {alias.asname or alias.name: self.value(node.module, alias.name) for alias in node.names}
        return {name: value for name, value in values.items() if value is not None}

    def _modules(self, node):
        """Return {name here: module} of the modules that `from ... import` brings."""
        names = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        return {name: module for name, module in names.items() if self.path(module)}

    def newest(self, path):
        """The latest time at which a file, a module that its constants come from, or this tool was changed."""
        seen, more = set(), [path]
        while more:
            path = more.pop()
            if path not in seen:
                seen.add(path)
                imports = [node for node in ast.walk(_parse(path)) if isinstance(node, ast.ImportFrom)]
                more += [self.path(node.module) for node in imports if self.imported(node)]
                more += [self.path(module) for node in imports for module in self._modules(node).values()]
        return max(os.stat(path).st_mtime for path in (*seen, __file__))

    def inline(self, path, shown):
        """Return the text of a file with its imported constants as numbers. shown: the path in messages."""
        with open(path) as file:
            lines = file.read().split("\n")
        tree = _parse(path)
        values = {}  # by the name here
        modules = {}  # by the name here
        edits = []  # (node, text)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                here = self.imported(node)
                if here:
                    values.update(here)
                    edits.append((node, _rest_of_import(node, here)))
                modules.update(self._modules(node))
        if not values and not modules:
            return "\n".join(lines)
        methods = {id(part) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for part in node.body}
        bound = [(node, _bound(node)) for node in ast.walk(tree) if id(node) not in methods]
        modules = {name: module for name, module in modules.items() if all(name != other for _, other in bound)}
        for node, name in bound:
            if name in values:
                raise ConstantError(f"{shown}:{node.lineno}: {name} is imported here, and bound anew")
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                raise ConstantError(f"{shown}:{node.lineno}: an f-string, whose parts have no columns")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                value = self.value(modules[node.value.id], node.attr)
                if value is not None:
                    edits.append((node, _literal(value)))
            if isinstance(node, ast.Name) and node.id in values:
                edits.append((node, _literal(values[node.id])))
        for node, text in sorted(edits, key=lambda edit: (edit[0].lineno, edit[0].col_offset), reverse=True):
            _replace(lines, node, text)
        return "\n".join(lines)


@cache
def _parse(path):
    with open(path) as file:
        return ast.parse(file.read(), path)


def _is_const(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "const"


def _bound(node):
    """The name that a node binds, other than by importing."""
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return node.id
    if isinstance(node, ast.arg):
        return node.arg
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return node.name
    return None


def _literal(value):
    return f"({value})" if value < 0 else str(value)


def _rest_of_import(node, gone):
    kept = [name for name in node.names if (name.asname or name.name) not in gone]
    if not kept:
        return "pass"
    names = ", ".join(name.name + (f" as {name.asname}" if name.asname else "") for name in kept)
    return f"from {node.module} import {names}"


def _replace(lines, node, text):
    first, last = node.lineno - 1, node.end_lineno - 1
    head = lines[first].encode()[: node.col_offset].decode()
    tail = lines[last].encode()[node.end_col_offset :].decode()
    lines[first : last + 1] = [head + text + tail] + [""] * (last - first)
