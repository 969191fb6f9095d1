"""What a person at the prompt has: Tab, help(), more(), and how values are shown.

Each part is imported when it is first used; here is only what leads there. port/modules/main.py puts these at the
prompt.
"""

import builtins


class Help:
    """help(): what there is; help(object): what it is for, with its names. Typed alone it says so."""

    def __init__(self, namespace):
        """namespace: the prompt's names, a dict."""
        self._namespace = namespace

    def __call__(self, *args):
        from vmm.prompt.help import tell

        tell(self._namespace, *args)

    def __repr__(self):
        return "help() tells what there is, help(object) what an object is for: help(vms), help(CPUID), help('modules')"


def completer(namespace):
    """Return what cpu.completer() takes. namespace: the prompt's names, a dict."""

    def complete(line):
        from vmm.prompt.complete import complete as really

        return really(line, namespace)

    return complete


def displayer():
    """Return what stands as __repl_print__ in builtins: it shows the value of a line typed at the prompt."""
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


def more(value):
    """Print a value, or a text, a page at a time: Space goes a page on, Enter a line, q ends it."""
    from vmm.prompt.more import more as really

    really(value)
