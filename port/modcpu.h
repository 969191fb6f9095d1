// The cpu module's C side, for main.c.
#ifndef PCANEL_PORT_MODCPU_H
#define PCANEL_PORT_MODCPU_H

// Prepares what an interrupt handler may need to raise; once per heap.
void cpu_module_init(void);

#endif
