"""The friendly prompt as a person at a terminal has it: Tab, help, values, pastes, history, Ctrl-C."""

import re

import pytest
from pcanel.repl import RemoteError

LIMIT = 60  # seconds
KILL = "\x15"  # Ctrl-U: the line is empty
MARK = "\x1b[?2004h"  # pastes are to be marked
PASTE, PASTED = "\x1b[200~", "\x1b[201~"


class Line:
    """The prompt's console."""

    def __init__(self, bench):
        self.console = bench.monitor.console("repl")
        self.console.send("\r\x1b[8;40;100t\r")
        self.console.expect(re.escape(MARK + ">>> "), LIMIT)

    def completes(self, typed, whole):
        """Tab behind `typed` makes it `whole`."""
        self.console.send(typed + "\t")
        self.console.expect("(?<![a-z.])" + re.escape(whole), LIMIT)
        self.console.send(KILL)

    def offers(self, typed, *names):
        """Tab prints names, these among them; returns what was printed."""
        self.console.send(typed + "\t")
        printed = self.console.expect(f"{re.escape(typed)}\n((?s:.*?))>>> {re.escape(typed)}", LIMIT).group(1).decode()
        self.console.send(KILL)
        assert set(names) <= set(printed.split())
        return printed.split()

    def answers(self, line):
        """What a line prints."""
        self.console.send(line + "\r")
        pattern = re.escape(line + "\x1b[?2004l\n") + r"((?s:.*?))" + re.escape(MARK + ">>> ")
        return self.console.expect(pattern, LIMIT).group(1).decode()


@pytest.fixture
def vm(bench, guest):
    made = guest("again: hlt\njmp again")
    bench.exec(f"vm = {made.ref}")
    return made


@pytest.fixture
def line(bench):
    made = Line(bench)
    yield made
    made.console.send("\x03\x1b[8;0;0t\r")
    made.console.expect(r"\n>>> ", LIMIT)


def test_tab_completes_what_there_is(line, vm):
    line.completes("moni", "monitor")
    line.completes("vm.unclai", "vm.unclaimed")
    line.completes(f"x = [vms['{vm.name[:1]}", f"vms['{vm.name}']")
    line.completes("vm.vcpu.rfl", "vm.vcpu.rflags")
    line.completes("vm.vcpu.own_", "vm.vcpu.own_registers")
    line.completes("vm.on(IO, po", "vm.on(IO, port=")
    line.completes("vm.on('mem", "vm.on('memory'")
    line.completes("vm.vcpu.peek(gv", "vm.vcpu.peek(gva=")
    line.completes("from vmm.recipes import rac", "race")
    line.completes("import multib", "import multiboot")


def test_tab_offers_the_words_for_users_alone(line, vm):
    names = line.offers("vm.", "pause", "on", "vcpu", "name", "memory", "symbols")
    assert not {"take_page", "settle", "preempt_soon", "refused", "_keep"} & set(names)
    assert "prefetch" not in line.offers("vm.p", "pause", "pc", "policies", "priority")
    line.offers("vm.on(IO,", "port=", "write=", "size=", "cpl=", "when=", "limit=")
    assert "vm" not in line.offers("vm.on(", "CPUID", "MEMORY", "STEP")
    line.offers("vm.vcpu.", "rax", "cr3", "peek", "registers")


def test_dir_lists_names_and_evaluates_nothing(line, vm):
    """Properties that raise (a mouse that the guest has not), and symbols, which answer to any name."""
    for value, names in (
        ("vm", ("mouse", "symbols", "pause", "on")),
        ("vm.vcpu", ("rax", "cr3", "peek")),
        ("vm.symbols", ("search", "at")),
        ("vm.exits", ("top", "trace")),
        ("'text'", ("upper",)),
        ("machine", ("mem8",)),
    ):
        said = line.answers(f"dir({value})")
        assert all(f"'{name}'" in said for name in names), (value, said)
    assert "'vms'" in line.answers("dir()")


def test_tab_says_nothing_of_what_is_not_there(line, vm):
    before = line.answers("6 * 7")
    for typed in ("vm.nothing", "nope.x", "vms['nope'].x", "1 // 0 .x", "vm.on(NOPE, p", "'text", "f().x"):
        line.console.send(typed + "\t")
        line.console.send(KILL)
    assert line.answers("6 * 7") == before == "42\n"


def test_symbols_of_a_guest_without_any_leave_the_prompt_as_it_is(line, vm):
    line.console.send("vm.symbols.do_\t" + KILL)
    assert line.answers("6 * 7") == "42\n"


def test_help_is_text_with_an_example(line, vm):
    said = line.answers("help()")
    assert [word for word in ("vm.on(", "verdicts", "sched", "monitor", "symbols", "recipes") if word not in said] == []
    assert re.search(r"pause\(\) +Let the guest stand still", line.answers("help(vm)"))
    assert "@vm.on(IO, port=0x3f8" in line.answers("help(vm.on)")
    said = line.answers("help(CPUID)")
    assert "leaf= EAX" in said and "@vm.on(CPUID, leaf=1)" in said
    assert "Return `size` bytes" in line.answers("help(vm.vcpu.peek)")
    assert "until vm.resume()" in line.answers("help(PAUSED)")
    assert "exception to the guest" in line.answers("help(Inject)")
    assert "__main__" in line.answers("help('modules')")


def test_help_for_what_is_written_in_c_or_for_speed(line, vm):
    """Methods that know neither their name nor their class."""
    said = line.answers("help(vm.vcpu.read)")
    assert said.startswith("Vcpu.read(field)\n") and "VMREAD" in said and "Example:" in said and "GUEST_CR3" in said
    for name in ("write", "msr", "dr", "fpu", "event", "injecting", "translate"):
        said = line.answers(f"help(vm.vcpu.{name})")
        assert said.startswith(f"Vcpu.{name}(") and "xample" in said, said
    assert line.answers("help(vm.clock.now)") == "Clock.now()\n\n    Ticks since the guest was made.\n"
    assert line.answers("help(cpu.inb)").startswith("cpu.inb(port)\n")
    assert re.search(r"\n  inb\(port\) +Return a byte of a port", line.answers("help(cpu)"))
    assert line.answers("help(vmx.vmread)").startswith("vmx.vmread()\n")
    assert line.answers("help(vm.mmio.size)").startswith("Mmio.size")
    assert line.answers("help(vm.pause)").startswith("Life.pause()\n")  # not what PAUSED is
    assert "Example: multiboot.cmdline()" in line.answers("help(multiboot.cmdline)")
    assert re.search(r"\n  rip +offset of the next", line.answers("help(vm.vcpu)"))


def test_values_are_shown_as_people_read_them(line, vm, bench):
    assert line.answers("0x12345678") == "305419896 = 0x12345678\n"
    assert line.answers("65535, True, None, 0x10000") == "(65535, True, None, 0x10000)\n"
    assert line.answers("_") == "(65535, True, None, 0x10000)\n"
    assert line.answers("'one'") == "'one'\n"
    assert line.answers("'one\\ntwo'") == "one\ntwo\n"
    assert line.answers("vm.vcpu").startswith(f"vCPU 0 of {vm.name}, ")
    assert re.search(r"^rip 0{10}100[0-9a-f]{3}  rfl", line.answers("vm.vcpu"), re.MULTILINE)
    bench.exec("vm.port_bus.read(0x5678, 1); vm.port_bus.read(0x1234, 1)")
    said = line.answers("vm.unclaimed()")
    assert 0 < said.find("(0x1234, False): 1") < said.find("(0x5678, False): 1")
    for shown in ("monitor", "sched", "caps", "vms", "vm", "vm.memory", "vm.console", "vm.pc", "still"):
        assert " object at " not in line.answers(shown).split("\n")[0], shown


def test_a_mistake_is_told_in_one_line(line, vm):
    """Without the calls of the monitor's own code, which traceback() has."""
    for typed, told in (
        ("vms['nope']", f"KeyError: no guest 'nope'; guests: {vm.name}"),
        ("vm.vcpu.peek(0x123456789000, 8)", "ValueError: gva 0x123456789000 is not mapped"),
        ("vm.memory.read(1 << 50, 8)", "ValueError: "),
        ("vm.on(IO, pot=1)", "ValueError: io has no filter pot=; it has port, write, size, cpl,"),
        ("vm.on('nope')", "ValueError: event 'nope' is unknown; there are arrival,"),
        ("vm.on(CPUID, cpl=4)", "ValueError: cpl=4: a number from 0 to 0x3"),
        ("vm.on(CPUID)(5)", "TypeError: a policy is a function of the vCPU, not 5"),
        ("vm.on(EXECUTE, at=0x123456789000)", "ValueError: gva 0x123456789000 is not mapped"),
        ("vm.symbols['do_sys_openat2']", "ValueError: "),
        ("vm.symbols.do_sys_openat2", "ValueError: "),
        ("vm.type('struct file')", "ValueError: "),
        ("vm.linux.ps()", "ValueError: "),
        ("vm.break_at('nope')", "ValueError: "),
        ("vm.break_at(vm.vcpu.rip, comm=5)", "ValueError: comm=5: a str of 1 to 15 bytes"),
        ("vm.break_at(vm.vcpu.rip, pid=1)", "ValueError: "),
        ("vm.breakpoints[3]", "KeyError: no breakpoint 3"),
        ("vm.step(0)", "ValueError: step(0): a number from 1 up"),
    ):
        said = line.answers(typed)
        assert said.startswith(told) and said.count("\n") == 1, (typed, said)
    whole = line.answers("traceback()")
    calls = r'  File "<stdin>", line 1, in <module>\n(  File "vmm/.*\n)+'
    assert re.fullmatch(rf"Traceback .*\n{calls}ValueError: step\(0\): .*\n", whole), whole
    assert "the last error" in line.answers("traceback")


def test_code_of_ones_own_keeps_its_traceback(line, vm):
    """Of a fault in it all calls, of a mistake that the monitor names its own calls."""
    assert re.fullmatch(r'Traceback .*\n  File "<stdin>", line 1, in <module>\nZero.*\n', line.answers("1 // 0"))
    wrong = line.answers("vm.memory.read('here', 8)")
    assert 'File "<stdin>", line 1' in wrong and 'File "vmm/' in wrong, wrong
    line.answers("f = lambda: vm.on(IO, pot=1)")
    said = line.answers("f()")
    calls = r'  File "<stdin>", line 1, in <module>\n  File "<stdin>", line 1, in <lambda>\n'
    assert re.fullmatch(rf"Traceback .*\n{calls}ValueError: io has no .*\n", said), said
    line.console.send(PASTE + "\rvm.policies\rvm.on(IO, pot=1)\r" + PASTED)
    line.console.expect(r'Traceback .*\n  File "<stdin>", line 3, in <module>\nValueError: io has no ', LIMIT)
    line.console.expect(re.escape(MARK + ">>> "), LIMIT)


def test_a_programs_errors_have_the_whole_traceback(vm):
    with pytest.raises(RemoteError) as raised:
        vm.exec("vm.on(IO, pot=1)")
    assert 'File "vmm/' in str(raised.value)


def test_a_long_reason_moves_no_column(line, bench, guest):
    bench.exec(f"vm = {guest('again: hlt; jmp again', cpus=2).ref}")
    line.answers("vm.break_at(vm.vcpu.rip, when=lambda vcpu: True, once=True); vm.resume()")
    assert line.answers("wait(vm, lambda: vm.state == 'paused')") == "True\n"
    head, row = line.answers("vms").splitlines()
    assert row[head.index("WHY") : head.index("RIP")].split("  ")[0] == "breakpoint 1 at 0x10000..."
    assert row[head.index("RIP") :].startswith("0x00000000")
    assert line.answers("vm.why").startswith("'breakpoint 1 at 0x100")


def test_one_empty_line_ends_what_is_typed(line):
    """Behind a colon and within brackets it ends nothing."""
    for typed in ("def typed(a):\rreturn a + 1\r\r", "def typed(a):\r\rreturn sum([\r\ra, 1])\r\r"):
        line.console.send(typed)
        line.console.expect(re.escape(MARK + ">>> "), LIMIT)
        assert line.answers("typed(41)") == "42\n"
        line.answers("del typed")


CLASS = """class Two:
    def one(self):
        return 1

    @property
    def two(self):
        return 2


print(Two().one() + Two().two, '\tend')
"""


def test_a_paste_is_one_piece(line):
    line.console.send(PASTE + CLASS.replace("\n", "\r") + PASTED)
    line.console.expect(r"\n3 \tend\n", LIMIT)
    assert line.answers("Two().two") == "2\n"


def test_a_paste_behind_what_is_typed(line):
    line.console.send("if True:\r" + PASTE + "a = 'pasted'\r\rb = a + 'once'\rprint(b)\r" + PASTED)
    line.console.expect(r"\npastedonce\n", LIMIT)
    line.console.send("print('x', " + PASTE + "'y')" + PASTED + "\r")
    line.console.expect(r"\nx y\n", LIMIT)


def test_a_paste_of_500_lines_and_a_line_of_3000_characters(line):
    text = "".join(f"total = total + {i}  # {'x' * 40}\r" for i in range(500))
    line.console.send(PASTE + "total = 0\r" + text + "print('sum', total)\r" + PASTED)
    line.console.expect(rf"\nsum {sum(range(500))}\n", LIMIT)
    line.console.send("'" + "y" * 3000 + "'\x1b[Hlen(\x1b[F)\r")
    line.console.expect(r"\n[^y]*3000\n", LIMIT)


def test_a_paste_that_is_broken_off(line):
    line.console.send(PASTE + "def f():\r    return")
    line.console.send("\x03")
    assert line.answers("6 * 7") == "42\n"


def test_ctrl_c_ends_output_and_line(line):
    line.console.send("print('z' * 10000000); after = 1\r")
    line.console.expect("z{1000}", LIMIT)
    line.console.send("\x03")
    line.console.expect("KeyboardInterrupt", LIMIT)
    assert line.answers("'after' in globals()") == "False\n"


def test_more_shows_a_page_at_a_time(line):
    line.console.send("more('\\n'.join(['row %d' % i for i in range(100)]))\r")
    line.console.expect(r"row 38\n-- Space", LIMIT)
    line.console.send("\r")
    line.console.expect(r"row 39\n-- Space", LIMIT)
    line.console.send("q")
    line.console.expect(">>> ", LIMIT)
    assert line.answers("6 * 7") == "42\n"


def test_a_program_at_the_prompt_sees_none_of_it(line, bench):
    assert bench.exec("print(repr(0x12345678), end='')") == "305419896"
    assert bench.exec("more('a\\n' * 100, )") == "a\n" * 100 + "\n"


def test_history_outlives_a_soft_reset(line, bench, guest):
    assert line.answers("'kept ' + 'line'") == "'kept line'\n"
    bench.exec("for vm in list(vms.values()): vm.destroy()")
    line.console.send("\x04")
    line.console.expect(r"MPY: soft reboot\n", LIMIT)
    line.console.expect(re.escape(MARK + ">>> "), LIMIT)
    line.console.send("\x1b[A\r")
    line.console.expect(r"'kept line'\n", LIMIT)
    assert "'kept ' + 'line'" in bench.eval("__import__('cpu').history()")


_WITHOUT = """
def without(value):
    from vmm.prompt import help as helps, names
    found = []
    for name in names.public(value):
        try: member = getattr(value, name)
        except (ValueError, AttributeError): continue
        if callable(member) and not isinstance(member, type):
            if helps.of(member) is None and helps.of_member(member, globals()) is None: found.append(name)
    return found
"""
_OBJECTS = ("vm", "vm.vcpu", "vm.clock", "vm.vcpu.lapic", "vm.memory", "vm.exits", "monitor", "sched", "vms")


def test_each_method_that_tab_offers_has_help(line, vm, bench):
    bench.exec(_WITHOUT)
    assert {name: bench.eval(f"without({name})") for name in _OBJECTS} == {name: [] for name in _OBJECTS}
