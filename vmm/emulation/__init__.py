"""Instructions that the monitor executes in the CPU's place.

`fastmov` and `fastmmio` are the short way, for a MOV on a device's page; `decode`, `opcodes`,
`emulate` and `alu` the long one, for every other instruction with a memory operand; `access` is
the guest's CPU as both see it, and `length` finds the end of an instruction whose exit gives none.
"""
