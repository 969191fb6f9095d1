"""The VGA text page by a guest: vm.screen(), and the screen on the console."""

import struct

from bench import DATA

WRITES = f"""
    mov rdi, 0xb8000 + 160 * 2
    lea rsi, [rip + text]
    mov ah, 0x1f
next:
    lodsb
    test al, al
    jz done
    stosw
    jmp next
done:
    mov edx, 0x3d4
    mov ax, 0x000e
    out dx, ax
    mov al, 0x0f
    out dx, al
    inc edx
    mov al, 165
    out dx, al
    in al, dx
    mov [{DATA:#x}], al
    dec edx
    in al, dx
    mov [{DATA + 1:#x}], al
    movzx eax, word ptr [0x463]
    mov [{DATA + 8:#x}], rax
    movzx eax, byte ptr [0x449]
    mov [{DATA + 16:#x}], rax
    hlt
text:
    .asciz "On the screen"
"""


def test_a_guest_writes_on_its_screen(guest):
    g = guest(WRITES)
    g.halted()
    assert g.eval("vm.screen().text") == ["", "", "On the screen"] + [""] * 22
    assert g.eval("vm.screen().cursor") == (2, 5)
    assert g.exec("print(vm.screen())").splitlines()[2] == "On the screen"
    assert struct.pack("<Q", g.word())[:2] == bytes((165, 0x0F))
    assert g.words(2, first=1) == (0x3D4, 3)  # the BIOS data area's CRTC port and mode
    assert g.eval("vm.unclaimed()['ports']") == {}
    assert g.eval("vm.console.written") == 0
    g.exec("vm.reset(); vm.pause()")
    assert g.eval("vm.screen().text == [''] * 25")


def test_a_screen_on_the_console(guest):
    g = guest(WRITES, screen="console")
    g.until("'On the screen' in vm.console.tail() and vm.console.tail().endswith('\\x1b[3;6H')")
    assert "\x1b[3;1HOn the screen\x1b[K" in g.eval("vm.console.tail()")
    written = g.eval("vm.console.written")
    g.bench.run(500)
    assert g.eval("vm.console.written") == written


def test_a_word_that_is_none_is_refused(bench):
    said = bench.refused(
        "monitor.create({'name': 'x', 'memory': 1 << 20, 'protocol': 'flat', 'kernel': 'k', 'address': 0,"
        " 'screen': 'colour'}, {})"
    )
    assert "screen: must be off, on, console or graphics" in said
