"""Rows that the table has once more, or only, under a condition of the monitor's.

A condition is a pass of its own over the guest's rows: with policies on them, with demand_paging, with a second
processor, with mitigations. Policies have a pass of their own because they stand in front of the operations that other
rows measure.
"""

from dataclasses import dataclass

from pcanel.bench.guest import Row

WATCH = "watch"  # a policy on each event, which answers None (guests/exitbench/policies.py)
VALUE = "value"  # ... a Value
HANDLED = "handled"
DEMAND = "demand"  # the guest with demand_paging
SECOND = "second"  # the guest with two processors
MITIGATED = "mitigated"  # a monitor without mitigations=off
HIDDEN = "hidden"  # policies that only look, by hidden breakpoints and at watched bytes
STEP = "step"  # a policy on each instruction
POLICIES = (WATCH, VALUE, HANDLED)
ATTACHED = (*POLICIES, HIDDEN, STEP)
SECOND_ROWS = ("ipi_hlt", "ipi_pause", "ipi_call")


@dataclass(frozen=True)
class Variant:
    """row: the guest's name. peer: the row of the guest under KVM that does the like: C in user space answers."""

    row: str
    condition: str
    peer: str | None = None


def _policies(row: str, *answers: str, peer: str | None = None) -> dict[str, Variant]:
    return {f"{row}_{answer}": Variant(row, answer, peer) for answer in answers}


VARIANTS = {
    "cpuid_mitigated": Variant("cpuid", MITIGATED),
    "page_first_touch_demand": Variant("page_first_touch", DEMAND, "page_first_touch"),
    **{row: Variant(row, SECOND, row) for row in SECOND_ROWS},
    "out_policy": Variant("out_policy", HANDLED, "out_policy"),
    "memory_policy": Variant("memory_policy", VALUE, "memory_policy"),
    "hidden_nop": Variant("hidden_nop", HIDDEN, "hidden_nop_user"),
    "hidden_push": Variant("hidden_push", HIDDEN, "hidden_push_user"),
    "syscall_watch": Variant("syscall", WATCH),
    "syscall_other": Variant("syscall", VALUE),
    "step": Variant("nop", STEP),
    "call_return": Variant("call_return", HIDDEN),
    "write_beside": Variant("write_beside", HIDDEN),
    **_policies("in_pic", *POLICIES, peer="in_uart"),
    **_policies("cpuid", *POLICIES),
    **_policies("rdmsr", *POLICIES, peer="rdmsr_user"),
    **_policies("wrmsr", *POLICIES, peer="wrmsr_user"),
    **_policies("wrmsr_fs_base", WATCH, peer="wrmsr_user"),
    **_policies("cr3_write", WATCH),
    "cr3_write_other": Variant("cr3_write", VALUE),
    **_policies("in_nobody", WATCH, peer="in_nobody"),
    **_policies("vmcall", *POLICIES),
    **_policies("rdrand", WATCH, VALUE),
    **_policies("int3", WATCH, HANDLED, peer="int3_user"),
    **_policies("ud2", HANDLED),
    **_policies("ram", *POLICIES, peer="mmio_policy"),
    **_policies("ioapic_read", WATCH, VALUE, peer="mmio_policy"),
}


def rows_under(condition: str, names: list[str] | None = None) -> dict[str, str]:
    """{the guest's row: its name in the table} under a condition; of these names in the table only, all where None."""
    return {
        variant.row: name
        for name, variant in VARIANTS.items()
        if variant.condition == condition and (names is None or name in names)
    }


def plain(names: list[str] | None) -> list[str] | None:
    """Those of these names that are no variant; None, which is all, where None."""
    return None if names is None else [name for name in names if name not in VARIANTS]


def rows_of(names: list[str] | None) -> list[str] | None:
    """The guest's rows that lead to these names in the table; None, which is all, where None."""
    return names and sorted({VARIANTS[name].row if name in VARIANTS else name for name in names})


def without_conditions(rows: dict[str, Row]) -> dict[str, Row]:
    """The variants of a machine on which a condition makes no difference."""
    return {name: rows[variant.row] for name, variant in VARIANTS.items() if variant.row in rows}


def of_any_monitor(rows: dict[str, Row]) -> dict[str, Row]:
    """Without the rows that measure nothing but under a condition which this monitor alone has."""
    return {name: row for name, row in rows.items() if name not in VARIANTS or VARIANTS[name].peer}


def peers(rows: dict[str, Row]) -> dict[str, Row]:
    """The variants under KVM."""
    return {name: rows[variant.peer] for name, variant in VARIANTS.items() if variant.peer in rows}
