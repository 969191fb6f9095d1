// How much of the heap a call may take, and when a collection is due.
#ifndef PCANEL_PORT_BUDGET_H
#define PCANEL_PORT_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUDGET_NONE (SIZE_MAX) // no limit

// Why an allocation was refused.
#define BUDGET_SPENT (1) // the call has used up its limit
#define BUDGET_FULL  (2) // the heap is nearly full

typedef struct {
    size_t left; // blocks of the heap
    unsigned refused; // 0: not yet, else why
} budget_t;

// A new heap.
void budget_init(void);

// A call begins that may take so many bytes, 0: without a limit. Returns the outer call's budget.
budget_t budget_begin(size_t bytes);

// It has ended. budget.refused stays valid until the next one begins.
void budget_end(budget_t outer);

// Suspends the budget for other code in the middle of the call: a preempting guest, or shield().
budget_t budget_suspend(void);
void budget_resume(budget_t suspended);

// Charges so many blocks if the call may have them; returns whether. budget_none(): the allocation failed after all.
bool budget_take(size_t blocks);
void budget_none(void);

// Whether a call with a limit runs: its allocations never start a collection.
bool budget_limits(void);

// Blocks have been allocated: gc_alloc_amount was `before`.
void budget_allocated(size_t before);

// Whether so much has been allocated since the last collection that the next one does not wait for idle time.
bool budget_overdue(void);

// After a collection. yields: it could be preempted.
void budget_collected(bool yields);

#endif
