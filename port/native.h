// MicroPython functions that native and viper code calls.
#ifndef PCANEL_NATIVE_H
#define PCANEL_NATIVE_H

// Before any Python runs.
void native_init(void);
#endif
