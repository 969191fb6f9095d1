"""Kinds of BTF types (the kernel's Documentation/bpf/btf.rst), for the monitor and for the host's drgn."""

from micropython import const

MAGIC = const(0xEB9F)

INT = const(1)
PTR = const(2)
ARRAY = const(3)
STRUCT = const(4)
UNION = const(5)
ENUM = const(6)
FWD = const(7)
TYPEDEF = const(8)
VOLATILE = const(9)
CONST = const(10)
RESTRICT = const(11)
FUNC = const(12)
FUNC_PROTO = const(13)
VAR = const(14)
DATASEC = const(15)
FLOAT = const(16)
DECL_TAG = const(17)
TYPE_TAG = const(18)
ENUM64 = const(19)
