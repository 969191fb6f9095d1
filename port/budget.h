// What a call may take of the heap, and from when on a collection is worth its time.
#ifndef PCANEL_PORT_BUDGET_H
#define PCANEL_PORT_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUDGET_NONE (SIZE_MAX) // no limit

// Why an allocation was refused.
#define BUDGET_SPENT (1) // the call has taken what it may
#define BUDGET_FULL  (2) // hardly anything is left of the heap

typedef struct {
    size_t left; // blocks of the heap
    unsigned refused; // 0: not yet, else why
} budget_t;

// A new heap.
void budget_init(void);

// A call begins that may take so many bytes, 0: without a limit. What was valid until then is returned.
budget_t budget_begin(size_t bytes);

// It has ended. Whether it was refused something stands until the next one begins.
void budget_end(budget_t outer);

// Code that has nothing to do with the call runs in the middle of it: a guest above, or what is shielded.
budget_t budget_suspend(void);
void budget_resume(budget_t suspended);

// Whether the call may have so many blocks; then they are taken. There were none in one piece: it may not after all.
bool budget_take(size_t blocks);
void budget_none(void);

// A call with a limit runs: it gets what is there, and never makes others wait for a collection.
bool budget_limits(void);

// More has been allocated: before, gc_alloc_amount was that.
void budget_allocated(size_t before);

// After a collection. yields: guests that are due may run in between.
void budget_collected(bool yields);

#endif
