"""A guest's devices are saved, reset and loaded, again and again, while it works."""

_CYCLE = """
import random, time
vm = vms["linux"]
for _ in range({rounds}):
    time.sleep_us(random.randrange({longest}))
    with still:
        state = vm.pc.save()
        for name, chip in vm.pc.chips():
            if chip:
                chip.reset()
        vm.pc.load(state)
        again = vm.pc.save()
        if again != state:
            print([name for name in state if again[name] != state[name]])
print("cycled")
"""
_LOAD = (
    "(while :; do dd if=/dev/urandom of=/dev/null bs=4096 count=64 2>/dev/null; ls -lR /proc/self >/dev/null; done) & "
    "echo $! >/tmp/load"
)


def check(monitor, shell, rounds=40):
    """The guest's clock, its timers and its console go on."""
    shell.run(_LOAD)
    try:
        before = shell.run("cat /proc/uptime").split()[0]
        assert monitor.exec(_CYCLE.format(rounds=rounds, longest=30000), timeout=120).strip() == "cycled"
        assert shell.run("sleep 0.2; echo awake").strip() == "awake"
        assert float(shell.run("cat /proc/uptime").split()[0]) > float(before)
    finally:
        shell.run("kill $(cat /tmp/load)")
    assert "Spurious" not in shell.run("dmesg | tail -5")
