// The friendly prompt as a person at a terminal has it.
#ifndef PCANEL_PORT_PROMPT_H
#define PCANEL_PORT_PROMPT_H

void prompt_keep(void); // before every soft reset, while the heap is there: keeps the history
void prompt_init(void); // at every soft reset, after readline_init0(): the history is still there

// The next character of a paste that is read in place of what is typed, or -1.
int prompt_pasted(void);

#endif
