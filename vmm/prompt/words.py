"""help()'s texts for names without a docstring of their own: a policy's answers, and the native modules."""

WORDS = {
    "default": "DEFAULT, as None: the next policy is asked, then the handler that would have run without policies.",
    "handled": "HANDLED: the policy has done it. RIP advances; an exception or a memory access is dropped.",
    "skip": "SKIP: nothing is done. RIP advances; an exception or a memory access is dropped.",
    "retry": "RETRY: the instruction runs again.",
    "pause": "PAUSED: the guest stands still at this instruction until vm.resume(); the policy is asked once for it.",
    "Value": "Value(number): what the guest reads, or what is written instead; (EAX, EBX, ECX, EDX) for CPUID.",
    "cpu": "cpu: instructions of the host's CPU, each a function: cpuid, rdmsr, wrmsr, cr, inb, outb, rdtsc, ... "
    "cpu.history() has the lines typed at the prompt.",
    "vmx": "vmx: VMX instructions and the vCPU object, for the monitor's own code.",
    "multiboot": "multiboot: what the boot loader said: cmdline(), memory(), modules(), image(), heap().",
    "machine": "machine: memory words (mem8, mem32, ...), UART, reset(), soft_reset().",
}
