"""Instructions that the monitor executes in the CPU's place.

The fast path: `sites` caches decoded instructions by their RIP and executes them with `fastmov` and `fastops`, in
viper. The slow path, for every other instruction with a memory operand: `access` enters it, `decode`, `opcodes`,
`emulate` and `alu` execute the general-register instructions, `oncpu` and `operands` let the CPU execute the rest.
`length` finds the end of an instruction whose exit gives no length, `branches` says whether one transfers control.
"""
