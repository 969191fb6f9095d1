"""A Linux in a guest for drgn: types from the kernel's own BTF, symbols from its kallsyms, without debugging symbols."""
