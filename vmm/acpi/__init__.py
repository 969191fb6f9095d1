"""ACPI: the tables that a guest finds below 1 MiB, and its DSDT."""

from vmm.acpi.tables import install

__all__ = ("install",)
