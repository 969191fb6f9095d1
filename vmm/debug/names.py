"""Names of exceptions (SDM Vol. 3A, "Exceptions and Interrupts") and the lines of a PC's interrupts."""

EXCEPTIONS = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF", 10: "#TS", 11: "#NP",
    12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC", 19: "#XM", 20: "#VE", 21: "#CP",
}  # fmt: skip
TITLES = {
    0: "divide error", 1: "debug exception", 3: "breakpoint", 4: "overflow", 5: "BOUND range exceeded",
    6: "invalid opcode", 7: "device not available", 8: "double fault", 10: "invalid TSS", 11: "segment not present",
    12: "stack-segment fault", 13: "general protection", 14: "page fault", 16: "x87 floating-point error",
    17: "alignment check", 18: "machine check", 19: "SIMD floating-point exception", 21: "control protection",
}  # fmt: skip
LINES = {
    0: "the 8254",
    1: "the keyboard",
    3: "COM2",
    4: "COM1",
    8: "the clock (MC146818)",
    9: "ACPI",
    12: "the mouse",
}


def vector_name(vector, error=None):
    """#GP(0x33), #UD, or "vector 0x20"."""
    name = EXCEPTIONS.get(vector, "vector %#x" % vector)
    return name if error is None else "%s(%#x)" % (name, error)
