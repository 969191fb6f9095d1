// Decides whether the end of a script, or Ctrl-D on an empty line, is a soft reset.
#ifndef PCANEL_PORT_SOFTRESET_H
#define PCANEL_PORT_SOFTRESET_H

#include <stdbool.h>
#include "py/obj.h"

// No hook yet; once per heap.
void softreset_init(void);

// A script has ended, by `error` or without one (NULL). A SystemExit that asks for no soft reset ends
// a program's script only: *ret is as after any other exception. MICROPY_BOARD_AFTER_PYTHON_EXEC.
void softreset_after_exec(unsigned exec_flags, void *error, int *ret);

// The prompt has been left, by Ctrl-D or SystemExit: whether the soft reset takes place. Asks the hook.
bool softreset_wanted(void);

#endif
