// machine.RamDisk's type, for modmachine.c.
#ifndef PCANEL_PORT_RAMDISK_H
#define PCANEL_PORT_RAMDISK_H

#include "py/obj.h"

extern const mp_obj_type_t ramdisk_type;

#endif
