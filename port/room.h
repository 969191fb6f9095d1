// A fast search for free blocks in front of gc_alloc()'s.
#ifndef PCANEL_PORT_ROOM_H
#define PCANEL_PORT_ROOM_H

#include <stddef.h>

#define ROOM_KEEP ((size_t)-1)

// Before gc_alloc() of so many blocks: makes it find them at once. The result is the argument of room_end(), after it.
size_t room_begin(size_t blocks);
void room_end(size_t begun);

// In place of gc_alloc() without flags, behind room_begin(): a long object, cleared; NULL: it is for gc_alloc().
void *room_take(size_t blocks, size_t begun);

// This block, and others around it, may have become free.
void room_freed(size_t block);

// A collection has ended. learn: search for the free runs of each class now, where guests of higher priority may
// preempt it, rather than in the next allocations.
void room_collected(bool learn);

#endif
