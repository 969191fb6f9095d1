// The host's page tables: all RAM and the low 4 GiB, at their own addresses.
#ifndef PCANEL_PORT_PAGING_H
#define PCANEL_PORT_PAGING_H

void paging_init(void);

#endif
