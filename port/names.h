// Where a name (a qstr) is found by its characters, without a search through all there are.
#ifndef PCANEL_PORT_NAMES_H
#define PCANEL_PORT_NAMES_H

// MicroPython has begun anew: it has the names of the image only.
void names_begin(void);

#endif
