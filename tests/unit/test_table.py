"""vmm/insight/table.py: tables, and a guest's text in them."""

from vmm.insight.table import Table, plain


def test_text_is_on_the_left_and_numbers_are_on_the_right():
    table = Table(("PID", "NAME"), [(1, "init"), (1000, "sh")])
    assert repr(table).splitlines() == [" PID  NAME", "   1  init", "1000  sh"]


def test_control_characters_of_a_guest_do_not_reach_the_terminal():
    for text in ("sh", "n\xf6n \u20ac", ""):
        assert plain(text) == text
    assert plain("new\nline\t\x1b[2J\x7f\x9b \xa0\xf6") == "new\\nline\\t\\x1b[2J\\x7f\\x9b \xa0\xf6"
    table = Table(("PID", "NAME"), [(1, "a\x1b]0;b\x07\n2 c")])
    assert repr(table).splitlines() == ["PID  NAME", "  1  a\\x1b]0;b\\x07\\n2 c"]
