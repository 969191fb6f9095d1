"""Names that are made at the prompt are found again, however many there are."""

INDEXED = 24_576  # names of the image included (port/qstrs.c): those that come later are sought in MicroPython's pools

MADE = f"""
class Holder:
    pass
holder = Holder()
for i in range(1, {INDEXED}, 600):
    setattr(holder, "made%d" % i, i)
    for j in range(i, i + 600):
        getattr(holder, "other%d" % j, None)
found = [i for i in range(1, {INDEXED}, 600) if getattr(holder, "made" + str(i)) != i]
"""


def test_many_names(fresh):
    machine = fresh()
    machine.exec(MADE, 600)
    assert machine.eval("found") == []
    assert not machine.eval("hasattr(holder, 'made' + '2')")


def test_names_after_a_soft_reset(fresh):
    machine = fresh()
    console = machine.console("repl")
    for again in range(3):
        assert machine.eval("'of_before' in globals()") is False
        machine.exec(f"of_before = {again}\nglobals()['of_' + 'more'] = {again}")
        assert machine.eval("(globals()['of_' + 'before'], of_more)") == (again, again)
        console.expect(">>> $", 10)
        console.send("\x04")
        console.expect("soft reboot", 10)
        console.expect(r"^>>> ", 30)
