"""The prompt's tools: Tab, help(), more(), and how values and errors are shown.

Each part is imported when it is first used; this module has only the entry points. port/modules/main.py puts them into
the prompt's namespace.
"""

import builtins
import sys

_TYPED = "<stdin>"  # the file of what is typed at the prompt
_OURS = "vmm/"


class Help:
    """help(): what there is; help(object): what the object is for, with its names for users."""

    def __init__(self, namespace):
        """namespace: the prompt's names, a dict."""
        self._namespace = namespace

    def __call__(self, *args):
        from vmm.prompt.help import tell

        tell(self._namespace, *args)

    def __repr__(self):
        return "help() tells what there is, help(object) what an object is for: help(vms), help(CPUID), help('modules')"


def lister(namespace):
    """Return dir(). namespace: the prompt's names, a dict.

    MicroPython's own dir() tries every known name on the object: it evaluates properties, stops at one that raises, and
    searches a guest's symbols thousands of times.
    """

    def listed(*args):
        from vmm.prompt import names

        return names.listed(*args) if args else sorted(namespace)

    return listed


def completer(namespace):
    """Return the function for cpu.completer(). namespace: the prompt's names, a dict."""

    def complete(line):
        from vmm.prompt.complete import complete as really

        return really(line, namespace)

    return complete


def displayer():
    """Return the function for builtins.__repl_print__: it shows the value of a line typed at the prompt."""
    plain = builtins.__repl_print__

    def display(value):
        if value is None or value is True or value is False:
            plain(value)
            return
        from vmm.prompt.show import shown

        text = shown(value)
        if text is None:
            plain(value)
        else:
            print(text)
            builtins._ = value

    return display


class Traceback:
    """traceback(): the calls that led to the last error at the prompt, the monitor's own among them.

    An error that the monitor raises on purpose is printed in one line, or within a longer piece of typed code with the
    user's own calls alone. Any other exception is printed as Python does.
    """

    def __init__(self):
        self._last = None

    def tell(self, error, calls, raised):
        """The function for cpu.errors(): whether it has printed the error.

        calls: [(file, line, function), ...], the outermost first; raised: by a raise statement, not by MicroPython.
        """
        self._last = error
        if not raised or calls[0][0] != _TYPED or not calls[-1][0].startswith(_OURS):
            return False
        own = [call for call in calls if not call[0].startswith(_OURS)]
        if len(own) > 1 or own[0][1] > 1:
            print("Traceback (most recent call last):")
            for call in own:
                print('  File "%s", line %d, in %s' % call)
        text = str(error)
        print("%s: %s" % (type(error).__name__, text) if text else type(error).__name__)
        return True

    def __call__(self):
        if self._last is not None:
            sys.print_exception(self._last)

    def __repr__(self):
        return "traceback() shows how the last error came about, through the monitor's own code too"


def more(value):
    """Print a value, or a text, a page at a time: Space shows the next page, Enter the next line, q ends it."""
    from vmm.prompt.more import more as really

    really(value)
