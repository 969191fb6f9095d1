// What native and viper code calls of MicroPython.
#ifndef PCANEL_NATIVE_H
#define PCANEL_NATIVE_H

// Before any Python runs.
void native_init(void);
#endif
