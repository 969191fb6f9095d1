"""What the host does with the prompt's output: colours, and the lines that were typed."""

from hypothesis import given
from hypothesis import strategies as st
from pcanel import history, paint
from pcanel.history import Typed
from pcanel.paint import Painter

SESSION = (
    b"\x1b[?2004h>>> vms['nope']\r\n\x1b[?2004lTraceback (most recent call last):\r\n  File \"<stdin>\", line 1\r\n"
    b"KeyError: no guest\r\n>>> y\r\nValueError: no x\r\nErrors\r\n"
    b">>> x\r\n[linux] paused\r\nplain [1] text\r\n[1, 2]\r\n"
)


def without_colours(text):
    return text.replace(b"\x1b[1;32m", b"").replace(b"\x1b[31m", b"").replace(b"\x1b[1;31m", b"").replace(
        b"\x1b[36m", b""
    ).replace(b"\x1b[m", b"")  # fmt: skip


def test_prompt_traceback_and_guests_have_colours():
    shown = Painter().feed(SESSION)
    assert b"\x1b[1;32m>>> \x1b[mvms['nope']\r\n" in shown
    assert b"\x1b[31mTraceback (most recent call last):\x1b[m\r\n\x1b[31m  File" in shown
    assert b"\x1b[1;31mKeyError: no guest\x1b[m\r\n" in shown
    assert b"y\r\n\x1b[1;31mValueError: no x\x1b[m\r\nErrors\r\n" in shown
    assert b"\x1b[36m[linux] paused\x1b[m\r\n" in shown
    assert shown.endswith(b"plain [1] text\r\n[1, 2]\r\n")


@given(st.lists(st.integers(0, len(SESSION))), st.booleans())
def test_it_comes_in_any_pieces_and_nothing_is_lost(cuts, slow):
    painter, shown, at = Painter(), b"", 0
    for cut in [*sorted(cuts), len(SESSION)]:
        shown += painter.feed(SESSION[at:cut]) + (painter.flush() if slow else b"")
        at = cut
    assert without_colours(shown + painter.flush()) == SESSION


@given(st.binary())
def test_any_output_passes(data):
    painter = Painter()
    shown = painter.feed(data) + painter.flush()
    assert without_colours(shown) == without_colours(data)


def test_colours_are_not_wanted_everywhere(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert paint.wanted()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not paint.wanted()


def test_edited_lines_are_read_as_they_were_entered():
    typed = Typed()
    typed.feed(b">>> vms\r\ntable\r\n>>> abd\bcd\b\b\x1b[K\x1b[3Dxyz\x1b[10D>>> \x1b[2D")
    assert typed.lines == ["vms"]
    typed.feed(b"\r\n>>> ")
    assert len(typed.lines) == 2 and typed.waits


def test_history_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history.load() == b""
    history.save(["a", "a", " ", "b"])
    history.save(["b", "c"])
    assert history.load() == b"a\nb\nc\n"
