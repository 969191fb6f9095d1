"""Exceptions for the guest: their vectors, and the Python exception that carries one to where it is delivered.

Who acts in the CPU's place raises Fault; who handles the exit delivers it (vmm/vtx/events.py, deliver()).
Source: SDM Vol. 3A, "Exception and Interrupt Reference".
"""

DE, DB, BP, OF, BR, UD, NM, DF = 0, 1, 3, 4, 5, 6, 7, 8
TS, NP, SS, GP, PF, MF, AC, MC = 10, 11, 12, 13, 14, 16, 17, 18


class Fault(Exception):
    """An exception for the guest: vector, error code, and for #PF the gva that goes to CR2."""

    def __init__(self, vector, error=0, gva=0):
        super().__init__(vector, error)
        self.vector = vector
        self.error = error
        self.gva = gva
