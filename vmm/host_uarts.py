"""The host's UARTs that serve as guests' consoles, and which guest has which.

A guest file names COM2 or COM3, or gets the first that is free. A COM1 that is linked to another guest is no console
and gets none.
"""

import machine

_CONSOLES = {"com2": 1, "com3": 2}


class HostUarts:
    """links: vmm.ties.link.Links. watch(machines): gives the scheduler the consoles with a host UART."""

    def __init__(self, links, watch):
        self._links = links
        self._watch = watch
        self._free = [1, 2]

    def choose(self, config):
        """Return (number, host UART) for the console of a guest with this description, or None. ValueError."""
        name, wanted = config["name"], config.get("console")
        cable = self._links.at(name, 0)
        if cable and wanted in _CONSOLES:
            raise ValueError("guest %s: console: COM1 is linked to %s and no console" % (name, cable.far.place()))
        if wanted == "none" or cable or not self._free:
            return None
        number = self._free[0]
        if wanted:
            number = _CONSOLES[wanted]
            if number not in self._free:
                raise ValueError("guest %s: console: %s has a guest already" % (name, wanted))
        return number, machine.UART(number)

    def give(self, vm, uart):
        """uart: as choose() returns it."""
        vm.uart, vm.console.host = uart or (None, None)
        if uart:
            self._free.remove(vm.uart)

    def free(self, vm):
        if vm.uart is not None:
            self._free.append(vm.uart)
            self._free.sort()
            vm.uart = None

    def rewire(self, machines):
        """A COM1 that has been linked gives up its host UART; one that has lost its link becomes a console again. The
        scheduler then watches the consoles that lead outside. machines: all VMs."""
        for vm in machines:
            console = vm.console
            linked = self._links.at(vm.name, 0) is not None
            if linked and not console.linked:
                console.linked = True
                console.host = None
                self.free(vm)
            elif console.linked and not linked:
                console.plug(vm.clock)
                try:
                    self.give(vm, self.choose(vm.config))
                except ValueError:
                    pass  # another guest has it by now: the prompt remains
        self._watch([vm for vm in machines if vm.uart is not None])
