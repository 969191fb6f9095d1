"""The outer system: Debian's kernel with KVM, booted in Bochs, to run programs of /dev/kvm where there is no VT-x.

    with Outer({"/bench": Path("build/bench")}, "/bench 2000") as outer:
        print(outer.result(timeout=300).lines)

`pcanel.engines.nested` puts QEMU into it, and the monitor into that.
"""

from pcanel.outer.system import Outer, Result

__all__ = ["Outer", "Result"]
