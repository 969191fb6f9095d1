"""Debian's cloud kernel with 2 processors, from the vmlinux inside its bzImage, on corei7_skylake_x: one boot."""

import re
import time

import broken
import calls32
import debugger
import drgns
import gdbs
import hostpolicies
import inside
import jobs
import names
import odd
import onetask
import pytest
import recipes
import saved
import smp
import switches
import systemcalls
import view
import vtx
import with_module
from pcanel.monitor import Monitor
from pcanel.paths import ROOT
from pcanel.repl import RemoteError
from shell import PROMPT, Shell


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """linux.toml as it is, but with a module in its initramfs."""
    directory = tmp_path_factory.mktemp("cloud")
    guests = ROOT / "build/guests"
    programs = [(calls32.NAME, calls32.program()), (odd.NAME, odd.Program().file)]
    with_module.initramfs(guests / "initrd.cpio", guests / "cloud", directory / "initrd.cpio", programs)
    text = (ROOT / "guests/linux.toml").read_text().replace("../build/guests/initrd.cpio", "initrd.cpio")
    file = directory / "linux.toml"
    file.write_text(text.replace('"../', f'"{ROOT}/'))
    with Monitor(engine=vtx.engine(), guests=[file]) as monitor:
        yield Shell(monitor, "linux").wait()


def test_commands_typed_on_the_console_are_answered(shell):
    assert shell.run("echo $((6 * 7))") == "42\n"
    assert shell.run("uname -s -m") == "Linux x86_64\n"
    assert "console=ttyS0\n" == shell.run("cat /proc/cmdline")


def test_programs_find_their_streams_as_files(shell):
    assert shell.run("echo 42 | cat /dev/stdin; echo 43 > /dev/stderr; echo 44 > /dev/fd/1") == "42\n43\n44\n"


def test_the_local_apic_timers_tick(shell):
    before = smp.interrupts(shell)["LOC"]
    shell.run("sleep 1")
    assert all(later > earlier for earlier, later in zip(before, smp.interrupts(shell)["LOC"], strict=True))


def test_interrupts_of_the_serial_port_arrive(shell):
    assert sum(smp.interrupts(shell)["4"]) > 0


def test_dmesg_tells_of_no_trouble(shell):
    assert shell.troubles() == []


def test_the_clock_source_is_the_tsc(shell):
    assert shell.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource") == "tsc\n"


def test_the_guests_clock_agrees_with_the_monitors(shell):
    """The guest's uptime is read between two looks at the monitor's clock; time flies while all is idle."""

    def now():
        return shell.monitor.eval("vms['linux'].clock.now() / vms['linux'].clock.hz")

    def look():
        return now(), float(shell.run("cut -d' ' -f1 /proc/uptime")), now()

    first, started, second = look()
    shell.run("sleep 60")
    third, ended, fourth = look()
    assert third - second - 0.1 <= ended - started <= fourth - first + 0.1
    assert fourth - first < 2 * (third - second)  # or the bounds say nothing


def test_both_processors_are_there(shell):
    smp.check_boot(shell, 2)


def test_work_on_both_processors(shell):
    before = smp.interrupts(shell)
    smp.load(shell, 2, 1)
    smp.check_interrupts(shell, 2, before)


def test_a_processor_goes_and_comes_back(shell):
    smp.check_hot_plug(shell, 1)


def test_files_and_processes_work(shell):
    shell.run("dd if=/dev/urandom of=/tmp/a bs=64k count=16 2>/dev/null && cp /tmp/a /tmp/b")
    sums = shell.run("cat /tmp/a | md5sum; md5sum < /tmp/b").split()
    assert sums[0] == sums[2]
    assert shell.run("for i in 1 2 3 4 5 6 7 8; do (echo $i > /dev/null) & done; wait; echo done").endswith("done\n")


def test_the_prompt_sees_the_guest(shell):
    monitor = shell.monitor
    assert monitor.eval("vms['linux'].state") in ("running", "halted")
    counts = monitor.eval("vms['linux'].exit_counts()")
    assert counts["CPUID"][0] > 100 and counts["IO_INSTRUCTION"][0] > 1000
    assert monitor.eval("vms['linux'].vcpu.cr0 & 0x80000001") == 0x80000001
    banner = monitor.eval("bytes(vms['linux'].memory.read(0xE0000, 8))")
    assert banner == b"RSD PTR "
    assert monitor.eval("vms['linux'].vcpu.rip") > 1 << 63 or monitor.eval("vms['linux'].vcpu.cpl") == 3


def test_questions_cost_what_was_promised(shell):
    """Of a guest that nobody has asked about yet."""
    assert shell.monitor.eval("vms['linux'].name_of(vms['linux'].vcpu.rip)") == ""
    inside.check_costs(shell, "linux")


def test_symbols_are_those_that_the_guest_tells(shell):
    assert names.differences(shell, "linux", 30000, 300) == []
    monitor = shell.monitor
    gva = monitor.eval("vms['linux'].symbols['do_sys_openat2']")
    assert monitor.eval(f"vms['linux'].symbols.at({gva + 0x1C})") == "do_sys_openat2+0x1c"
    assert ("do_sys_openat2", gva) in monitor.eval("vms['linux'].symbols.search('do_sys_open*')")
    with pytest.raises(RemoteError, match="KeyError: no symbol do_sys_opnat2; there are do_sys_openat2, "):
        monitor.exec("vms['linux'].symbols['do_sys_opnat2']")
    with pytest.raises(RemoteError, match="KeyError: init_once is the name of [0-9]+ symbols: 0xffffffff8"):
        monitor.exec("vms['linux'].symbols['init_once']")


def test_symbols_are_found_without_vmcoreinfo(shell):
    names.check_search(shell, "linux")


def test_addresses_that_are_printed_have_names_then(shell):
    """Once symbols are used. The guest stands in its idle loop when nothing happens."""
    monitor = shell.monitor
    monitor.exec("vms['linux'].symbols['do_sys_openat2']")
    for _ in range(60):
        row = monitor.eval("[repr(vms), repr(vms['linux']), vms['linux'].vcpu.registers()]")
        if all("halt" in text for text in row):
            break
        time.sleep(1)
    assert all(re.search(r"0xffffffff8[0-9a-f]{7} \w*halt\w*(\+0x[0-9a-f]+)?", text) for text in row[:2]), row
    assert re.search(r"\nrip is \w*halt", row[2])


def test_the_view_from_outside_agrees_with_proc(shell):
    inside.check(shell, "linux")


def test_stacks_and_system_calls_agree_with_proc(shell):
    view.check_stacks(shell, "linux")


def test_threads_files_mappings_mounts_agree_with_proc(shell):
    view.check_processes(shell, "linux")


def test_sockets_agree_with_proc(shell):
    view.check_sockets(shell, "linux")


def test_an_odd_program_agrees_with_proc(shell):
    odd.check(shell, "linux")


def test_modules_have_symbols_and_types(shell):
    with_module.check(shell, "linux", ROOT / "build/guests/cloud")


def test_questions_about_what_is_not_there_are_answered_in_a_line(shell):
    inside.check_refusals(shell, "linux")


def test_system_calls_are_what_a_program_does(shell):
    systemcalls.check(shell, "linux")


def test_system_calls_of_32_bit_programs(shell):
    calls32.check(shell, "linux")


def test_switches_are_seen(shell):
    switches.check(shell, "linux")


def test_one_process_is_stepped_and_no_other(shell):
    onetask.check(shell, "linux")


def test_a_child_comes_back_too(shell):
    systemcalls.check_forks(shell)


def test_calls_that_signals_interrupt(shell):
    systemcalls.check_signals(shell)


def test_recipes_of_system_calls(shell):
    systemcalls.check_recipes(shell, "linux")


def test_recipes_that_guard_and_look(shell):
    recipes.check(shell, "linux")


def test_filters_of_tasks_and_calls_say_what_is_wrong(shell):
    systemcalls.check_refusals(shell)


def test_drgn_sees_what_proc_says(shell, tmp_path):
    drgns.check(shell, "linux", tmp_path)


def test_drgn_by_a_serial_line(shell):
    drgns.check_by_line(shell, "linux")


def test_drgn_says_that_the_guest_has_run(shell):
    drgns.check_run_meanwhile(shell, "linux")


def test_drgn_knows_types_of_modules(shell):
    drgns.check_modules(shell, "linux")


def test_gdb_knows_names_frames_and_tasks(shell):
    gdbs.check(shell, "linux")


def test_the_prompt_dumps_on_the_host(shell, tmp_path):
    drgns.check_dump_at_the_prompt(shell, "linux", tmp_path)


def test_dump_and_drgn_refuse_in_a_line(shell, tmp_path):
    drgns.check_refusals(shell, "linux", tmp_path)


def test_functions_of_the_host_see_events(shell):
    hostpolicies.check(shell, "linux")


def test_break_step_and_watch(shell):
    debugger.check(shell, "linux")


def test_the_jobs_of_the_readme(shell):
    jobs.check(shell, "linux")


def test_linux_survives_broken_policies(shell):
    broken.check(shell, "linux")
    assert shell.troubles() == []


def test_devices_are_saved_and_loaded_at_work(shell):
    saved.check(shell.monitor, shell)


def test_pause_and_resume(shell):
    monitor = shell.monitor
    monitor.exec("vms['linux'].pause()")
    ran = monitor.eval("vms['linux'].vcpu.guest_ticks")
    shell.console.send("echo still here\n")
    time.sleep(1)
    assert monitor.eval("vms['linux'].vcpu.guest_ticks") == ran
    monitor.exec("vms['linux'].resume()")
    shell.console.expect(rb"\nstill here\n", 120)
    shell.console.expect(PROMPT, 60)


@pytest.mark.parametrize("hidden, seconds", [(True, 30), (False, 10)])  # after 20 it says that a processor is stuck
def test_a_stop_that_linux_does_not_see(shell, hidden, seconds):
    """By none of its clocks, which it compares, nor by the real-time clock. The stop is in a policy."""
    shell.monitor.exec(
        f"import time\nvm = vms['linux']\nvm.hide_stops = {hidden}\n"
        f"@vm.on(SYSCALL, number='sync', once=True)\ndef stop(vcpu): time.sleep({seconds})\nstop.limit_ms = 100000"
    )
    look = "cut -d' ' -f1 /proc/uptime; cat /sys/class/rtc/rtc0/since_epoch"
    up, rtc, later, rtc_later = map(float, shell.run(f"{look}; sync; {look}").split())
    shell.monitor.exec("vms['linux'].hide_stops = False")
    assert abs((later - up) - (rtc_later - rtc)) < 2
    assert later - up < 5 if hidden else later - up >= seconds
    if hidden:
        assert "watchdog" not in shell.run("dmesg | tail -n 5")
        assert shell.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource") == "tsc\n"


def test_reboot_starts_the_kernel_again(shell):
    starts = shell.monitor.eval("vms['linux'].starts")
    shell.monitor.exec("later = vms['linux'].on(STEP, comm='stty', limit=5)(lambda vcpu: None)")
    shell.console.send("reboot\n")
    shell.console.expect(rb"reboot: Restarting system", 240)
    names.check_early(shell.monitor, "linux", starts)
    shell.wait()
    shell.run("stty -a > /dev/null")  # the one before may run still, as the prompt is printed anew when it is typed at
    assert shell.monitor.eval("(later.hits, later.attached)") == (5, False)
    assert float(shell.run("cut -d. -f1 /proc/uptime")) < 60
    assert shell.monitor.eval("vms['linux'].symbols.at(vms['linux'].symbols['do_sys_openat2'])") == "do_sys_openat2"
    assert "reset by the guest" in shell.monitor.eval("vms['linux'].messages")


def test_poweroff_is_noticed(shell):
    shell.console.send("poweroff\n")
    shell.console.expect(rb"reboot: Power down", 240)
    shell.monitor.console("repl").expect(rb"\[linux\] powered off by the guest", 60)
    assert shell.monitor.eval("vms['linux'].state") == "off"
    assert shell.monitor.eval("6 * 7") == 42
