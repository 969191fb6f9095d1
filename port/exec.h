// The executable region: machine code that the native and viper emitters make.
#ifndef PCANEL_PORT_EXEC_H
#define PCANEL_PORT_EXEC_H

#include <stdbool.h>
#include <stddef.h>

void exec_init(void); // empties it
void exec_alloc(size_t min_size, void **ptr, size_t *size);
void exec_free(void *ptr, size_t size);
bool exec_contains(const void *ptr);
size_t exec_used(void);

#endif
