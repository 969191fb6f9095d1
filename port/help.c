// The text that help() prints.
const char pcanel_help_text[] =
    "Pcanel/Py: a VMX monitor that is MicroPython.\n"
    "\n"
    "While this prompt waits, guests run; while a line runs, those of priority 0 stand still.\n"
    "  with still():       and in here the others, too\n"
    "  vms                 the machines, by name: vms['linux']\n"
    "  caps                what the CPU's VMX offers, and what of it is used\n"
    "  cpu, vmx, multiboot instructions, VMX operation, what the boot loader said\n"
    "  machine             memory words, UARTs, reset\n"
    "\n"
    "Keys: Ctrl-A raw REPL, Ctrl-B this REPL, Ctrl-C interrupt, Ctrl-D soft reset\n"
    "(on an empty line), Ctrl-E paste mode.\n"
    "help(object) tells of an object, help('modules') lists modules.\n";
