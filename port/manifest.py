# What is frozen into the image: asyncio, the port's own modules, and the monitor.
# vmm/ may be absent while the port is built alone.
import os

include("$(MPY_DIR)/extmod/asyncio")
freeze("modules", opt=2)
if os.path.isdir("../vmm"):
    package("vmm", base_path="..", opt=0)
    freeze("$(GENERATED)", ("vmm/acpi/dsdt_aml.py", "vmm/acpi/pci_aml.py", "vmm/acpi/mmio_aml.py"), opt=0)
    freeze("$(GENERATED)", "vmm/prompt/texts.py", opt=0)
