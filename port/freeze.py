"""Freezes Python into C, with integers as this machine has them.

    freeze.py TOP ARGUMENTS...       tools/makemanifest.py of the tree at TOP
    freeze.py --tool TOP ARGUMENTS...  tools/mpy-tool.py

MicroPython's mpy-tool.py serves machines down to 16 bits: in a constant tuple it makes
every integer past 13 bits an object, arithmetic with which allocates. Here 63 bits fit
in a word.
"""

import importlib.util
import sys

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
    return manifest.main()


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
