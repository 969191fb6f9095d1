// Name tables with free entries.
#ifndef PCANEL_PORT_NAMES_H
#define PCANEL_PORT_NAMES_H

// Enlarges the table of the prompt's globals; once per heap.
void names_init(void);

#endif
