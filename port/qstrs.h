// Where a name (a qstr) is found by its characters, without a search through all there are.
#ifndef PCANEL_PORT_QSTRS_H
#define PCANEL_PORT_QSTRS_H

// MicroPython has begun anew: it has the names of the image only.
void qstrs_begin(void);

#endif
