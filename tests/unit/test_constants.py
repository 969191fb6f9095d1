"""port/constants.py: constants of other modules become numbers before a module is frozen."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "port"))

from constants import ConstantError, Tree

TABLE = """
from micropython import const
from package.base import UNIT
A = const(3)
MANY = const(UNIT * 4)
BELOW = const(-1)
TEXT = const("text")
PLAIN = 5
"""


@pytest.fixture
def inline(tmp_path):
    """inline(text): what becomes of a module with this text beside package/table.py."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text("UNIT = const(0x10)\n")
    (package / "table.py").write_text(TABLE)

    def run(text):
        path = tmp_path / f"module{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        return Tree(tmp_path).inline(path, "module.py")

    return run


def test_a_constant_becomes_its_number_and_leaves_the_import(inline):
    text = inline("from package.table import A, PLAIN\nprint(A, PLAIN, a.A)\n")
    assert text == "from package.table import PLAIN\nprint(3, PLAIN, a.A)\n"


def test_expressions_of_other_constants_and_negative_ones(inline):
    assert inline("from package.table import BELOW, MANY\nx = MANY - BELOW\n") == "pass\nx = 64 - (-1)\n"


def test_a_constant_that_a_module_has_from_another_one(inline):
    assert inline("from package.table import UNIT as U\nx = U\n") == "pass\nx = 16\n"


def test_an_attribute_of_an_imported_module(inline):
    assert inline("from package import table\nx = table.A + table.PLAIN\n").endswith("x = 3 + table.PLAIN\n")


def test_a_parameter_with_the_name_of_a_module_is_not_the_module(inline):
    text = "from package import table\ndef f(table):\n    return table.A\n"
    assert inline(text) == text


def test_lines_keep_their_numbers(inline):
    text = inline("from package.table import (\n    A,\n    MANY,\n    PLAIN,\n)\n\nx = [\n    A,\n    MANY]\n")
    assert text.split("\n")[6:] == ["x = [", "    3,", "    64]", ""]
    assert "PLAIN" in text


def test_texts_and_what_is_no_const_stay(inline):
    text = "from package.table import PLAIN, TEXT\nprint(PLAIN, TEXT)\n"
    assert inline(text) == text


@pytest.mark.parametrize(
    "line", ["A = 4", "def f(A):\n    pass", "class A:\n    pass", "for A in x:\n    pass", "f'{A}'"]
)
def test_what_cannot_be_put_in_is_refused_with_its_place(inline, line):
    with pytest.raises(ConstantError, match=r"module\.py:2: "):
        inline("from package.table import A\n" + line + "\n")


def test_a_module_is_as_new_as_the_modules_of_its_constants(tmp_path, inline):
    import os

    (tmp_path / "user.py").write_text("from package.table import MANY\n")
    os.utime(tmp_path / "package/base.py", (2**32, 2**32))
    assert Tree(tmp_path).newest(str(tmp_path / "user.py")) == 2**32
