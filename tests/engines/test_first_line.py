"""The host tools are there for the monitor from the first line on that a program runs at its prompt."""

import vtx
from pcanel.monitor import Monitor

ASK = """
from vmm.debug.mailbox import ask
try:
    ask({"do": "nothing"})
except ValueError as error:
    print(error)
"""


def test_the_first_line_may_ask_the_host():
    with Monitor(engine=vtx.engine()) as monitor:
        assert monitor.exec(ASK).strip() == "the host does not know how to nothing"
