"""VT-x as the SDM describes it: capabilities, the VMCS and its checks, a vCPU, its exits, and event injection."""
