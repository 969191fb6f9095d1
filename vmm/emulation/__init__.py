"""Instructions that the monitor executes in the CPU's place.

The fast path: `sites` caches decoded instructions by their RIP and executes them with `fastmov` and `fastops`, in
viper. The slow path, for every other instruction with a memory operand: `decode`, `opcodes`, `emulate` and `alu`.
`access` is the guest's CPU as both see it. `length` finds the end of an instruction whose exit gives no length.
"""
