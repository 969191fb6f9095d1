// The second half of a collection.
#ifndef PCANEL_PORT_SWEEP_H
#define PCANEL_PORT_SWEEP_H

// After marking: runs finalisers and frees what is not marked. Guests of higher priority preempt it where
// collect_yields is set.
void sweep(void);

#endif
