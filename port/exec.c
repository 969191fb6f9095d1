// First fit over a list of blocks in address order, each with a small header.
// Code lives until it is freed or until a soft reset empties the region: the
// garbage collector does not scan it. The default, 8 MiB, holds tens of thousands
// of functions.
#include <stdint.h>
#include "py/runtime.h"
#include "port/exec.h"
#include "port/memory.h"

#define GRANULE 32

typedef struct _block_t {
    struct _block_t *next;
    size_t size; // with this header
    bool used;
} block_t;

_Static_assert(sizeof(block_t) <= GRANULE, "header size");

static block_t *first_block(void) {
    return (block_t *)memory.exec.hpa;
}

void exec_init(void) {
    *first_block() = (block_t){NULL, memory.exec.size, false};
}

bool exec_contains(const void *ptr) {
    return (uintptr_t)ptr - memory.exec.hpa < memory.exec.size;
}

void exec_alloc(size_t min_size, void **ptr, size_t *size) {
    size_t need = (min_size + 2 * GRANULE - 1) & ~(size_t)(GRANULE - 1);
    for (block_t *block = first_block(); block != NULL; block = block->next) {
        if (block->used || block->size < need) {
            continue;
        }
        if (block->size >= need + 2 * GRANULE) {
            block_t *rest = (block_t *)((char *)block + need);
            *rest = (block_t){block->next, block->size - need, false};
            block->next = rest;
            block->size = need;
        }
        block->used = true;
        *ptr = (char *)block + GRANULE;
        *size = block->size - GRANULE;
        return;
    }
    mp_raise_msg(&mp_type_MemoryError, MP_ERROR_TEXT("executable memory is full"));
}

void exec_free(void *ptr, size_t size) {
    (void)size;
    if (ptr == NULL) {
        return;
    }
    ((block_t *)((char *)ptr - GRANULE))->used = false;
    for (block_t *block = first_block(); block != NULL; block = block->next) {
        while (!block->used && block->next != NULL && !block->next->used) {
            block->size += block->next->size;
            block->next = block->next->next;
        }
    }
}

size_t exec_used(void) {
    size_t used = 0;
    for (block_t *block = first_block(); block != NULL; block = block->next) {
        used += block->used ? block->size : 0;
    }
    return used;
}
