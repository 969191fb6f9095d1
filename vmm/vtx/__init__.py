"""VT-x as the SDM has it: capabilities, the VMCS and its checks, a vCPU, its exits, and events into it."""
