"""Host tools of Pcanel/Py: engines, consoles, guest files and images.

`pcanel.monitor.Monitor` starts the monitor on an engine and gives its consoles; the
command `pcanel` and the tests are built on it.
"""


def connect(run: str | None = None):
    """The monitor that `pcanel run` started, as an object (pcanel/attach.py): the run named, or the only one."""
    from pcanel.attach import connect as attach

    return attach(run)
