// Where gc_alloc() finds free blocks, without a search of its own.
#ifndef PCANEL_PORT_ROOM_H
#define PCANEL_PORT_ROOM_H

#include <stddef.h>

#define ROOM_KEEP ((size_t)-1)

// Before gc_alloc() of so many blocks: it finds them at once. What it returns is for room_end(), behind it.
size_t room_begin(size_t blocks);
void room_end(size_t begun);

// A long object, cleared, as gc_alloc() makes it without flags; NULL: it is for gc_alloc().
void *room_take(size_t blocks);

// This block may be free now, and others around it.
void room_freed(size_t block);

// A collection has ended. learn: now, while guests of a higher priority may run in between, rather than in the
// middle of the next allocations.
void room_collected(bool learn);

#endif
