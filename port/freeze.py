"""Freezes Python into C, with integers as this machine has them and constants of other modules put in (constants.py).

    freeze.py TOP ARGUMENTS...       tools/makemanifest.py of the tree at TOP
    freeze.py --tool TOP ARGUMENTS...  tools/mpy-tool.py

MicroPython's mpy-tool.py serves machines down to 16 bits: in a constant tuple it makes
every integer past 13 bits an object, arithmetic with which allocates. Here 63 bits fit
in a word.
"""

import importlib.util
import os
import sys
import tempfile

from constants import ConstantError, Tree

SMALL_INT_BITS = 63


def load(top, name):
    """A script of the tree's tools/ as a module that has not run yet."""
    sys.path.insert(0, top + "/tools")
    sys.dont_write_bytecode = True
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), f"{top}/tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_tool(top):
    tool = load(top, "mpy-tool")
    limit = 1 << (SMALL_INT_BITS - 1)
    tool.mp_small_int_fits = lambda value: -limit <= value < limit
    return tool.main()


def run_manifest(top):
    manifest = load(top, "makemanifest")
    original = manifest.system

    def system(command):
        if command[1].endswith("/tools/mpy-tool.py"):
            command = [command[0], __file__, "--tool", top, *command[2:]]
        return original(command)

    manifest.system = system
    inline_constants(manifest, Tree(".."))
    return manifest.main()


def inline_constants(manifest, modules):
    """Have a module's imported constants put in before it is compiled.

    It is compiled again when one of them may have changed, or the compiler has.
    """
    compile_file, timestamp = manifest.mpy_cross.compile, manifest.get_timestamp
    compiler = os.path.getmtime(os.environ["MICROPY_MPYCROSS"])

    def compile_inlined(source, **options):
        try:
            text = modules.inline(source, options["src_path"])
        except ConstantError as error:
            raise manifest.mpy_cross.CrossCompileError(str(error)) from None
        with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
            file.write(text)
            file.flush()
            return compile_file(file.name, **options)

    def timestamp_with_constants(path, default=None):
        found = timestamp(path, default)
        module = path.partition("/frozen_mpy/")[2]
        source = modules.path(module[: -len(".mpy")].replace("/", ".")) if module.endswith(".mpy") else None
        if source and os.path.isfile(path) and max(modules.newest(source), compiler) >= found:
            return default
        return found

    manifest.mpy_cross.compile = compile_inlined
    manifest.get_timestamp = timestamp_with_constants


def main():
    if sys.argv[1] == "--tool":
        del sys.argv[1]
        run = run_tool
    else:
        run = run_manifest
    top = sys.argv.pop(1)
    return run(top)


if __name__ == "__main__":
    sys.exit(main())
