"""Exceptions for the guest: their vectors, and the Python exception that carries one to its delivery.

Code that acts in the CPU's place raises Fault; the exit's handler delivers it (vmm/vtx/events.py, deliver()). Source:
SDM Vol. 3A, "Exception and Interrupt Reference".
"""

from micropython import const

DE = const(0)
DB = const(1)
NMI = const(2)
BP = const(3)
OF = const(4)
BR = const(5)
UD = const(6)
NM = const(7)
DF = const(8)
TS = const(10)
NP = const(11)
SS = const(12)
GP = const(13)
PF = const(14)
MF = const(16)
AC = const(17)
MC = const(18)
WITH_ERROR = const(1 << DF | 1 << TS | 1 << NP | 1 << SS | 1 << GP | 1 << PF | 1 << AC)  # push an error code


class Fault(Exception):
    """An exception for the guest: vector, error code, and for #PF the gva that goes to CR2."""

    def __init__(self, vector, error=0, gva=0):
        super().__init__(vector, error)
        self.vector = vector
        self.error = error
        self.gva = gva
