"""Guests, their images and policies from the image's boot modules (docs/boot-modules.md)."""

import json
import sys
from collections import OrderedDict

import cpu
import multiboot
import uctypes

from vmm import description


def boot_modules():
    """Return {name: memoryview} of the Multiboot modules, in order."""
    found = OrderedDict()
    for string, hpa, size in multiboot.modules():
        found[string.split(" ", 1)[0]] = memoryview(uctypes.bytearray_at(hpa, size))
    return found


def load_guests(monitor):
    """Create the guests that came as boot modules; a bad one gets one line, and the others are created.

    Guests that name their console come first, so that no other guest has taken it; among them those with links, so that
    the guests at the far ends are made with the UARTs.
    """
    modules = boot_modules()
    configs = []
    for name in modules:
        if name.startswith("guest:"):
            try:
                config = json.loads(str(modules[name], "utf-8"))
                description.check(config)
                configs.append(config)
            except Exception as error:  # whatever the module holds: the others are created
                _say_of(name[6:], error)
    for wanted in ((True, True), (True, False), (False, True), (False, False)):
        for config in configs:
            if (bool(config.get("console")), bool(config.get("links"))) == wanted:
                _create_or_say(monitor, config, modules)
    return modules


def _create_or_say(monitor, config, modules):
    try:
        monitor.create(config, modules)
    except Exception as error:
        _say_of(config["name"], error)


def _say_of(name, error):
    """Report a guest that is not created."""
    text = str(error)
    print(text if text.startswith("guest ") else "guest %s: %s: %s" % (name, type(error).__name__, text))


def load_history(modules):
    """The lines typed at the prompt in earlier runs, where the host has kept them and this is a start."""
    if "prompt:history" in modules and not cpu.history():
        try:
            cpu.history(str(modules["prompt:history"], "utf-8").splitlines())
        except (ValueError, MemoryError):
            print("the history of earlier runs is not text")


def start_guests(monitor):
    """Start the created guests that have autostart set."""
    for vm in list(monitor.vms.values()):
        if vm.config.get("autostart", True):
            try:
                vm.start()
            except Exception as error:
                vm.why = str(error)
                print("guest %s does not start: %s: %s" % (vm.name, type(error).__name__, error))
    for line in monitor.switches.lonely() if monitor.has_switches else ():
        print(line)


def run_policies(modules, namespace):
    """Execute the policy files among the boot modules; errors are printed, and the others are executed."""
    for name in modules:
        if name.startswith("policy:"):
            try:
                exec(compile(str(modules[name], "utf-8"), name[7:], "exec"), namespace)
            except KeyboardInterrupt:
                print("policy file %s: interrupted (Ctrl-C); the start goes on" % name[7:])
            except BaseException as error:
                print("policy file %s:" % name[7:])
                sys.print_exception(error)
