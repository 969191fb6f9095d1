"""gdb's remote protocol on COM4, for an unchanged gdb.

`line` watches COM4, and imports the rest at its first character. `stub` is a session of gdb's: `packets` frames what
comes, `access`, `running` and `documents` answer, `commands` has gdb's `monitor` words. `guest` is one VM under gdb,
`points` its breakpoints, `threads` and `registers` what gdb sees of it. docs/gdb-drgn.md is for users.
"""
