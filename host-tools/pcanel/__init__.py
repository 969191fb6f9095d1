"""Host tools of Pcanel/Py: engines, consoles, guest files and images.

`pcanel.monitor.Monitor` starts the monitor on an engine and gives its consoles; the
command `pcanel` and the tests are built on it.
"""
