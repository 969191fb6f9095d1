"""The bench's guest under the monitor: one boot, as many passes over its rows as wanted."""

import tempfile
from pathlib import Path

from pcanel.bench import conditions, guest
from pcanel.console import Console
from pcanel.engines.choose import Choice, choose
from pcanel.monitor import Monitor
from pcanel.paths import ELF

_STEPPED = 10  # so many times fewer rounds where each instruction exits
_MEMORY = 256  # MiB
UNMITIGATED = "mitigations=off"  # the monitor's option; KVM's kernel has the same (pcanel.outer)
GUESTS = {  # by condition: the same guest with further keys
    conditions.DEMAND: (guest.NAME + "-demand", "demand_paging = true"),
    conditions.SECOND: (guest.NAME + "-second", 'cpus = 2\nconsole = "none"'),
}
_SHARED, _ = GUESTS[conditions.DEMAND]  # whose console the others of these use in turn
_BEGIN = """
import machine
from vmm.acpi.tables import PM_TMR_BLK
for name in {others!r}:
    vms[name].console.host = machine.UART(2) if name == {name!r} else None
vm = vms[{name!r}]
vm.config['cmdline'] = {options!r} + ' pm_timer=%d cpus=%d' % (PM_TMR_BLK, len(vm.vcpus))
vm.start()
"""


class Monitored:
    """A monitor with the guest, switched off until a pass. A context manager. cmdline: the monitor's."""

    def __init__(
        self, cpu: str | None = None, image: Path = ELF, choice: Choice | None = None, cmdline: str = UNMITIGATED
    ):
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            files = []
            for name, keys in ((guest.NAME, ""), *GUESTS.values()):
                files.append(Path(directory) / f"{name}.toml")
                files[-1].write_text(
                    f'memory = "32M"\nprotocol = "multiboot"\nkernel = "{guest.image()}"\nautostart = false\n{keys}\n'
                )
            self.monitor = Monitor(cpu=cpu, memory=_MEMORY, guests=files, image=image, cmdline=cmdline)
        self.monitor.choice = choice or choose("bochs")

    def __enter__(self) -> "Monitored":
        self.monitor.start()
        try:
            self.monitor.exec(guest.POLICIES.read_text() + f"\nvm = vms[{guest.NAME!r}]\nadd_device(vm)\n")
        except BaseException:
            self.monitor.stop()
            raise
        return self

    def __exit__(self, *_exception) -> None:
        self.monitor.stop()

    def begin(self, options: str, name: str = guest.NAME) -> None:
        """Starts a pass with this command line, and does not wait for its end."""
        others = [other for other, _ in GUESTS.values()]
        self.monitor.exec(_BEGIN.format(name=name, others=others, options=options))

    def console(self, name: str = guest.NAME) -> Console:
        """Where the guest of this name prints."""
        return self.monitor.console(guest.NAME if name == guest.NAME else _SHARED)

    def run(
        self, rows: list[str] | None = None, rounds: int = guest.ROUNDS, timeout: float = 300, name: str = guest.NAME
    ) -> str:
        """One pass of the guest of this name; what it printed in it. Raises PcanelError."""
        self.begin(guest.cmdline(rows, rounds), name)
        text = guest.wait(self.console(name), timeout)
        guest.parse(text)
        return text

    def under(self, condition: str, rounds: int = guest.ROUNDS, names: list[str] | None = None) -> dict[str, guest.Row]:
        """The rows of a condition (pcanel.bench.conditions), by their names in the table; all where None.

        The monitor has to have been started for MITIGATED.
        """
        wanted = conditions.rows_under(condition, names)
        if not wanted:
            return {}
        self.attach(condition)
        name, _ = GUESTS.get(condition, (guest.NAME, ""))
        if condition == conditions.STEP:
            rounds //= _STEPPED
        text = self.run(list(wanted), rounds, name=name)
        self.monitor.exec(f"detach_policies(vms[{guest.NAME!r}])")
        return {wanted[row]: figures for row, figures in guest.parse(text).items()}

    def attach(self, condition: str) -> None:
        """Attaches a condition's policies to the guest, if it has any."""
        if condition in conditions.ATTACHED:
            self.monitor.exec(f"attach_policies(vms[{guest.NAME!r}], {condition!r})")

    def rows(self, rounds: int = guest.ROUNDS, names: list[str] | None = None) -> dict[str, guest.Row]:
        """All rows, or those of these names, each under its own condition; but for MITIGATED."""
        found = {}
        plain = conditions.plain(names)
        if plain or names is None:
            found.update(guest.parse(self.run(plain, rounds)))
        for condition in (*conditions.ATTACHED, *GUESTS):
            found.update(self.under(condition, rounds, names))
        return found
