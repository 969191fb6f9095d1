// Tables of names with room.
#ifndef PCANEL_PORT_NAMES_H
#define PCANEL_PORT_NAMES_H

// Makes room among the prompt's globals; once per heap, when they are new.
void names_init(void);

#endif
