// The friendly prompt at a terminal.
#ifndef PCANEL_PORT_PROMPT_H
#define PCANEL_PORT_PROMPT_H

void prompt_keep(void); // before every soft reset, while the heap exists: saves the history
void prompt_init(void); // at every soft reset, after readline_init0(): restores the history

// The next character of a paste, which is read before typed input; -1: none.
int prompt_pasted(void);

#endif
