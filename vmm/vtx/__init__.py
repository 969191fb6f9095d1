"""VT-x: capabilities, the VMCS and its checks, a vCPU, its exits, and event injection."""
