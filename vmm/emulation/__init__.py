"""Instructions that the monitor executes in the CPU's place.

`sites` keeps what was decoded by its place in the code, and with `fastmov` and `fastops` is the short way; `decode`,
`opcodes`, `emulate` and `alu` are the long one, for every other instruction with a memory operand; `access` is
the guest's CPU as both see it, and `length` finds the end of an instruction whose exit gives none.
"""
