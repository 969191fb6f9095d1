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
    unsigned refused; // 0, or why an allocation was refused
} budget_t;

// No limit yet; once per heap.
void budget_init(void);

// Begins a call that may take so many bytes; 0: no limit. Returns the outer call's budget.
budget_t budget_begin(size_t bytes);

// Ends it. budget.refused stays valid until the next call begins.
void budget_end(budget_t outer);

// Suspends the budget for other code in the middle of the call: a preempting guest, or shield().
budget_t budget_suspend(void);
void budget_resume(budget_t suspended);

// Charges so many blocks to the call; false if its limit does not allow them. budget_none(): the allocation failed
// although it was allowed.
bool budget_take(size_t blocks);
void budget_none(void);

// Whether a call with a limit is running. Its allocations never start a collection.
bool budget_limits(void);

// After an allocation: gc_alloc_amount was `before`.
void budget_allocated(size_t before);

// Whether so much has been allocated since the last collection that the next is due before idle time comes.
bool budget_overdue(void);

// After a collection. yields: it could be preempted.
void budget_collected(bool yields);

#endif
