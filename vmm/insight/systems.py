"""The views (vmm/insight/system.py) that `system` of a guest's description may name: their modules and classes."""

SYSTEMS = {"rtos": ("vmm.insight.rtos", "Rtos")}
