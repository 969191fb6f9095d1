"""The idle hook: what runs guests while the prompt or a sleep waits."""

HOOK = """
import cpu, time
calls = []
def hook(deadline):
  calls.append(deadline)
  while not cpu.wanted():
    cpu.idle(deadline)
cpu.idle_hook(hook)
"""


def test_runs_while_the_prompt_waits(fresh):
    machine = fresh()
    machine.exec(HOOK)
    console = machine.console("repl")
    console.send("print(len(calls) > 0, calls[-1])\r\n")
    console.expect(r"^True 0$", 10)


def test_ends_with_the_sleep(fresh):
    printed = fresh().exec(
        HOOK + "del calls[:]\nt = cpu.rdtsc()\ntime.sleep_ms(200)\n"
        "print(len(calls), calls[0] > t, (cpu.rdtsc() - t) * 1000 // cpu.tsc_hz)"
    )
    calls, has_deadline, slept_ms = printed.split()
    assert int(calls) >= 1
    assert has_deadline == "True"
    assert 200 <= int(slept_ms) < 400


def test_failing_hook_is_removed(fresh):
    machine = fresh()
    console = machine.console("repl")
    console.send("def bad(d): raise ValueError('broken hook')\r\n\r\nimport cpu; cpu.idle_hook(bad)\r\n")
    console.expect("The idle hook failed and is removed:\nTraceback", 10)
    console.expect("ValueError: broken hook", 10)
    console.send("print('prompt' + 'lives')\r\n")
    console.expect("^promptlives$", 10)


def test_soft_reset_removes_it(fresh):
    machine = fresh()
    console = machine.console("repl")
    machine.exec(HOOK)
    console.send("\x04")
    console.expect("soft reboot", 10)
    console.expect(rb"^>>> ", 30)
    assert "[]" in machine.exec("import time\ncalls = []\ntime.sleep_ms(50)\nprint(calls)")


def test_interrupt_at_the_prompt_does_not_end_it(fresh):
    """An exception that the hook lets through, and a watchdog that nobody disarmed."""
    machine = fresh()
    console = machine.console("repl")
    machine.exec(
        "import cpu\nKEPT = 1\ndef stop(d):\n  cpu.idle_hook(None)\n  raise KeyboardInterrupt\ncpu.idle_hook(stop)"
    )
    console.expect(r"KeyboardInterrupt: ?\n(.*\n)*>>> ", 10)
    machine.exec("cpu.watch(cpu.rdtsc() + cpu.tsc_hz // 20)")
    console.send("\r\n")
    console.expect(">>> ", 10)
    console.send("print('kept', KEPT)\r\n")
    console.expect("^kept 1$", 10)
    assert "Timeout" not in console.text()
    assert "soft reboot" not in console.text()


def test_watchdog_of_a_sleep_passes_through_it(fresh):
    printed = fresh().exec(
        HOOK + "cpu.watch(cpu.rdtsc() + cpu.tsc_hz // 10)\n"
        "try:\n  time.sleep(10)\nexcept cpu.Timeout:\n  print('timeout', len(calls))\n"
    )
    assert "timeout" in printed
    assert "removed" not in printed


def test_ctrl_c_ends_a_hook_that_does_not_return(fresh):
    machine = fresh()
    console = machine.console("repl")
    machine.exec("import cpu\n@micropython.viper\ndef spin(d):\n  while True: pass\ncpu.idle_hook(spin)")
    console.send("\x03")
    console.expect("The idle hook did not return and is removed:\n(.*\n)*KeyboardInterrupt", 30)
    console.send("print('prompt' + 'lives')\r\n")
    console.expect("^promptlives$", 10)


def test_a_programs_words_do_not_call_it_each(fresh):
    """It had nothing to run and nothing has come for it: some thousand instructions a character otherwise."""
    machine = fresh()
    machine.exec(HOOK)
    before = machine.eval("len(calls)")
    machine.exec(f"text = '{'x' * 4000}'")
    assert machine.eval("len(calls)") - before < 400


def test_it_is_called_when_what_it_waits_for_is_due(fresh):
    machine = fresh()
    machine.exec(HOOK.replace("cpu.idle(deadline)", "cpu.idle(cpu.rdtsc() + cpu.tsc_hz // 1000)"))
    before = machine.eval("len(calls)")
    machine.exec(f"text = '{'x' * 20000}'")
    assert machine.eval("len(calls)") - before > 20  # of some hundred milliseconds


def test_it_is_called_for_a_guests_console(fresh):
    machine = fresh()
    machine.exec("import machine\ncom2 = machine.UART(1)\nheard = []")
    machine.exec(HOOK.replace("cpu.idle(deadline)", "cpu.idle(deadline); heard.append(com2.read())"))
    machine.exec("del heard[:]")
    machine.console("com2").send("typed")
    machine.exec(f"text = '{'x' * 4000}'")
    assert machine.eval("b''.join(some for some in heard if some)") == b"typed"
