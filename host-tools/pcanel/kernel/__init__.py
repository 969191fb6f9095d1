"""A Linux in a guest for drgn: types from the kernel's BTF, symbols from its kallsyms."""
