// The second half of a collection.
#ifndef PCANEL_PORT_SWEEP_H
#define PCANEL_PORT_SWEEP_H

// Everything reachable is marked: finalisers run, and what is not marked is free. It is preempted by guests of a higher
// priority where collect_yields says so.
void sweep(void);

#endif
