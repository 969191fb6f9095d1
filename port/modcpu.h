// The cpu module's C side, for main.c.
#ifndef PCANEL_PORT_MODCPU_H
#define PCANEL_PORT_MODCPU_H

// The state of the module and of the files whose functions it has; once per heap.
void cpu_module_init(void);

#endif
