"""What the prompt says of a guest's memory, and a guest's own console of what the prompt does with it."""

from bench import CODE

KERNELS, PROGRAMS = 0x300000, 0x301000  # top tables, as Linux's page-table isolation pairs them
GVA = 0xFFFFFFFF80000000
AT = 0x200000

TABLES = f"""
import struct
def entry(table, index, value): vm.memory.write(table + 8 * index, struct.pack('<Q', value))
vm.pause()
vcpu, cr3 = vm.vcpu, vm.vcpu.cr3
for table in ({KERNELS}, {PROGRAMS}):
    vm.memory.write(table, vm.memory.read(cr3 & ~0xfff, 2048) + bytes(2048))
entry({KERNELS}, 511, 0x302003)
entry(0x302000, 510, 0x303003)
entry(0x303000, 0, {AT} | 0x83)
vm.memory.write({AT}, b'of the kernel')
vcpu.cr3 = {PROGRAMS}
"""

CONSOLE = """
class Heard:
    def __init__(self): self.text = ''
    def any(self): return 0
    def readchar(self): return -1
    def writechar(self, c):
        self.text += chr(c)
        return True
heard = Heard()
vm.console.host = heard
"""


def test_kernel_addresses_are_found_while_a_program_runs(guest):
    made = guest("again: hlt\njmp again")
    made.go()
    made.exec(TABLES)
    assert made.eval(f"vcpu.peek({GVA}, 13)") == b"of the kernel"
    made.exec(f"vcpu.poke({GVA}, b'in')")
    assert made.eval(f"vcpu.peek({GVA}, 13, {KERNELS})") == b"in the kernel"
    assert made.eval(f"vcpu.peek({GVA}, 2, vcpu.space({KERNELS}))") == b"in"
    assert made.eval(f"vcpu.peek({CODE}, 1)") == made.eval(f"vm.memory.read({CODE}, 1)")
    assert "is not mapped" in made.refused(f"vcpu.peek({GVA}, 2, {PROGRAMS})")
    made.exec(f"entry({KERNELS}, 5, 0x302003)")  # another system's table that happens to lie there
    assert "is not mapped" in made.refused(f"vcpu.peek({GVA}, 2)")
    made.exec("vcpu.cr3 = cr3")


def test_the_guests_console_says_that_a_policy_has_stopped_it(guest):
    made = guest("again: cpuid\njmp again", start=False)
    made.exec(CONSOLE + "@vm.on(CPUID)\ndef broken(vcpu): 1 // 0\nvm.start()\nwait(vm, lambda: vm.state == 'paused')")
    said = made.eval("heard.text")
    assert said == f"\r\n[pcanel: {made.name} is paused: policy broken failed on cpuid; the prompt has the report]\r\n"
    made.exec("broken.detach(); heard.text = ''; vm.resume(); vm.pause(); vm.resume()")
    assert made.eval("heard.text") == f"\r\n[pcanel: {made.name} goes on]\r\n"
    assert made.eval("vm.console.tail()") == ""
