"""A guest's ACPI tables, which are below 1 MiB, and its DSDT."""

from vmm.acpi.tables import install

__all__ = ("install",)
