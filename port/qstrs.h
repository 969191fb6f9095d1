// The index that finds a name (a qstr) by its characters.
#ifndef PCANEL_PORT_QSTRS_H
#define PCANEL_PORT_QSTRS_H

// Indexes the names of the image; once per heap.
void qstrs_begin(void);

#endif
