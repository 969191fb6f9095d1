// The friendly prompt at a terminal: Tab completes by Python, a bracketed paste runs as one piece, and
// the history outlives a soft reset.
//
// MicroPython's readline() and mp_repl_autocomplete() are wrapped (Makefile). The raw REPL does not come here.
// A terminal is detected by the size that it reports (CSI 8 ; rows ; columns t, which `pcanel run` and `pcanel repl`
// send), or from its first escape sequence or Tab. Only then the prompt asks it to mark pastes.
// Source: ECMA-48; xterm's control sequences, "Bracketed Paste Mode" and "Window manipulation".
#include <string.h>
#include "py/mphal.h"
#include "py/runtime.h"
#include "py/repl.h"
#include "port/preempt.h"
#include "port/prompt.h"
#include "shared/readline/readline.h"
#include "shared/runtime/interrupt_char.h"
#include "shared/runtime/pyexec.h"

#define ESC             27
#define SEQUENCE_MAX    24
#define PASTE_MAX       (256 * 1024)
#define HISTORY_MAX     (16 * 1024)
#define DEFAULT_ROWS    24
#define DEFAULT_COLUMNS 80

int __real_readline(vstr_t *line, const char *prompt);
int __wrap_readline(vstr_t *line, const char *prompt);
size_t __real_mp_repl_autocomplete(
    const char *str, size_t len, const mp_print_t *print, const char **compl_str);
size_t __wrap_mp_repl_autocomplete(
    const char *str, size_t len, const mp_print_t *print, const char **compl_str);

// What Ctrl-E's paste mode reads: the text, then Ctrl-D.
static struct {
    size_t at, size;
    bool waits; // for the next call of readline()
} pasted;

static struct {
    bool known;
    unsigned rows, columns;
} terminal = {.rows = DEFAULT_ROWS, .columns = DEFAULT_COLUMNS};

static char
    history[HISTORY_MAX]; // lines that end with NUL, the newest first; an empty one ends them

// -- history

void prompt_keep(void) {
    size_t at = 0;
    for (size_t i = 0; i < MICROPY_READLINE_HISTORY_SIZE; i++) {
        const char *line = MP_STATE_PORT(readline_hist)[i];
        size_t size = line ? strlen(line) + 1 : 0;
        if (size == 0 || at + size >= HISTORY_MAX) {
            break;
        }
        memcpy(history + at, line, size);
        at += size;
    }
    history[at] = '\0';
}

void prompt_init(void) {
    MP_STATE_PORT(prompt_completer) = mp_const_none;
    MP_STATE_PORT(prompt_answer) = MP_OBJ_NULL;
    MP_STATE_PORT(prompt_paste) = NULL;
    pasted.at = pasted.size = 0;
    pasted.waits = false;
    const char *lines[MICROPY_READLINE_HISTORY_SIZE];
    size_t count = 0;
    for (const char *line = history; *line && count < MP_ARRAY_SIZE(lines);
         line += strlen(line) + 1) {
        lines[count++] = line;
    }
    while (count > 0) {
        readline_push_history(lines[--count]);
    }
}

// history([lines]) -> the lines that were typed at the prompt, the oldest first, after adding `lines`.
static mp_obj_t mod_history(size_t n_args, const mp_obj_t *args) {
    if (n_args > 0) {
        mp_obj_iter_buf_t buffer;
        mp_obj_t lines = mp_getiter(args[0], &buffer);
        for (mp_obj_t line; (line = mp_iternext(lines)) != MP_OBJ_STOP_ITERATION;) {
            readline_push_history(mp_obj_str_get_str(line));
        }
    }
    mp_obj_t list = mp_obj_new_list(0, NULL);
    for (size_t i = MICROPY_READLINE_HISTORY_SIZE; i-- > 0;) {
        const char *line = MP_STATE_PORT(readline_hist)[i];
        if (line != NULL) {
            mp_obj_list_append(list, mp_obj_new_str(line, strlen(line)));
        }
    }
    return list;
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(cpu_history_obj, 0, 1, mod_history);

// -- the terminal

// terminal() -> (rows, columns, person): its size as reported, else 24 and 80; whether a terminal has been detected
// and the prompt is in use, not the raw REPL.
static mp_obj_t mod_terminal(void) {
    mp_obj_t items[3] = {MP_OBJ_NEW_SMALL_INT(terminal.rows),
        MP_OBJ_NEW_SMALL_INT(terminal.columns),
        mp_obj_new_bool(terminal.known && pyexec_mode_kind == PYEXEC_MODE_FRIENDLY_REPL)};
    return mp_obj_new_tuple(3, items);
}
MP_DEFINE_CONST_FUN_OBJ_0(cpu_terminal_obj, mod_terminal);

static unsigned number(const char **at) {
    unsigned n = 0;
    while ('0' <= **at && **at <= '9' && n < 10000) {
        n = 10 * n + *(*at)++ - '0';
    }
    if (**at == ';') {
        ++*at;
    }
    return n;
}

// CSI 8 ; rows ; columns t. 0 rows or columns: the terminal has left.
static void resize(const char *parameters) {
    number(&parameters);
    unsigned rows = number(&parameters), columns = number(&parameters);
    terminal.known = rows != 0 && columns != 0;
    terminal.rows = terminal.known ? rows : DEFAULT_ROWS;
    terminal.columns = terminal.known ? columns : DEFAULT_COLUMNS;
}

static void mark_pastes(bool on) {
    static bool marked;
    if (on != marked && (terminal.known || !on)) {
        mp_hal_stdout_tx_str(on ? "\x1b[?2004h" : "\x1b[?2004l");
        marked = on;
    }
}

// Passes a character to readline. At Enter the marking of pastes ends before the newline is printed, so that the line's
// output begins in the first column.
static int process(int c) {
    if (c == '\r') {
        mark_pastes(false);
    }
    return readline_process_char(c);
}

// -- pasting

int prompt_pasted(void) {
    if (pasted.at < pasted.size) {
        return (byte)MP_STATE_PORT(prompt_paste)[pasted.at++];
    }
    MP_STATE_PORT(prompt_paste) = NULL;
    return -1;
}

static int type(const char *text, size_t len) {
    int ret = -1;
    for (size_t i = 0; i < len && ret < 0; i++) {
        if (text[i] == '\t') { // not the key, which completes
            ret = type("    ", 4);
        } else {
            ret = process((byte)text[i]);
        }
    }
    return ret;
}

// Adds the characters up to CSI 201 ~ to `text`, lines ending with \r. False for Ctrl-C.
static bool read_paste(vstr_t *text) {
    static const char end[] = "\x1b[201~";
    size_t matched = 0;
    bool cr = false;
    for (;;) {
        int c = mp_hal_stdin_rx_chr();
        if (c == CHAR_CTRL_C) {
            return false;
        }
        if (c == end[matched]) {
            if (end[++matched] == '\0') {
                return true;
            }
            continue;
        }
        matched = c == end[0];
        if (c == '\n' && cr) {
            cr = false;
            continue;
        }
        cr = c == '\r';
        if (c == '\n') {
            c = '\r';
        }
        if ((c >= ' ' || c == '\r' || c == '\t') && text->len < PASTE_MAX) {
            vstr_add_byte(text, c);
        }
    }
}

// Several lines: MicroPython's paste mode reads them, after what the line holds already. It compiles them as a file,
// in which a blank line ends nothing.
static int run_paste(vstr_t *line, vstr_t *text, bool continued) {
    vstr_t all;
    vstr_init(&all, line->len + text->len + 2);
    for (size_t i = 0; i < line->len; i++) {
        vstr_add_byte(&all, line->buf[i] == '\n' ? '\r' : line->buf[i]);
    }
    vstr_add_strn(&all, text->buf, text->len);
    vstr_add_byte(&all, CHAR_CTRL_D);
    MP_STATE_PORT(prompt_paste) = all.buf;
    pasted.at = 0;
    pasted.size = all.len;
    pasted.waits = continued; // pyexec.c knows Ctrl-E in the first line only
    return continued ? CHAR_CTRL_C : CHAR_CTRL_E;
}

static int paste(vstr_t *line, bool continued) {
    vstr_t text;
    vstr_init(&text, 128);
    if (!read_paste(&text)) {
        return CHAR_CTRL_C;
    }
    size_t len = text.len;
    while (len > 0 && text.buf[len - 1] == '\r') {
        len--;
    }
    if (memchr(text.buf, '\r', len) != NULL) {
        if (text.len >= PASTE_MAX) {
            mp_hal_stdout_tx_str("\r\nnothing of it was run: a paste is at most 256 KiB");
            return CHAR_CTRL_C;
        }
        return run_paste(line, &text, continued);
    }
    int ret = type(text.buf, len);
    return ret >= 0 || len == text.len ? ret : process('\r');
}

// -- reading a line

// After ESC: handles the terminal's reports and pastes; passes all other sequences to readline.
static int escape(vstr_t *line, bool continued) {
    char sequence[SEQUENCE_MAX + 1];
    size_t len = 0;
    sequence[len++] = ESC;
    do {
        sequence[len++] = mp_hal_stdin_rx_chr();
    } while (sequence[1] == '[' && len < SEQUENCE_MAX &&
             (len == 2 || (' ' <= sequence[len - 1] && sequence[len - 1] < '@')));
    sequence[len] = '\0';
    if (sequence[1] == '[' && sequence[len - 1] == 't') {
        resize(sequence + 2);
        return -1;
    }
    terminal.known = true;
    if (strcmp(sequence + 1, "[200~") == 0) {
        return paste(line, continued);
    }
    return type(sequence, len);
}

// Enter in a line of nothing but the indentation that readline() inserted ends the statement; in MicroPython it takes
// two more. After a colon, and within brackets and strings, the statement goes on.
static void end_statement(vstr_t *line) {
    size_t whole = line->len, len = whole;
    while (len > 0 && line->buf[len - 1] == ' ') {
        len--;
    }
    if (len == whole || len < 2 || line->buf[len - 1] != '\n' || line->buf[len - 2] == ':') {
        return;
    }
    line->len = len;
    if (mp_repl_continue_with_input(vstr_null_terminated_str(line))) {
        line->buf[len] = ' ';
        line->len = whole;
    }
}

int __wrap_readline(vstr_t *line, const char *prompt) {
    if (pasted.waits) {
        pasted.waits = false;
        return CHAR_CTRL_E;
    }
    bool continued = line->len != 0;
    mark_pastes(true);
    readline_init(line, prompt);
    int ret;
    do {
        int c = mp_hal_stdin_rx_chr();
        if (c == ESC) {
            ret = escape(line, continued);
        } else {
            terminal.known |= c == '\t';
            ret = process(c);
        }
    } while (ret < 0);
    if (ret == 0 && continued) {
        end_statement(line);
    }
    mark_pastes(false);
    preempt_look();
    return ret;
}

// -- Tab

// completer(f): f(line up to the cursor) returns the str to insert, or True where it has printed the
// matches, or None for MicroPython's own completion. completer(None) removes f.
static mp_obj_t mod_completer(mp_obj_t completer) {
    MP_STATE_PORT(prompt_completer) = completer;
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_completer_obj, mod_completer);

size_t __wrap_mp_repl_autocomplete(
    const char *str, size_t len, const mp_print_t *print, const char **compl_str) {
    if (MP_STATE_PORT(prompt_completer) == mp_const_none) {
        return __real_mp_repl_autocomplete(str, len, print, compl_str);
    }
    size_t found = 0;
    nlr_buf_t nlr;
    mp_hal_set_interrupt_char(CHAR_CTRL_C);
    if (nlr_push(&nlr) == 0) {
        mp_obj_t answer =
            mp_call_function_1(MP_STATE_PORT(prompt_completer), mp_obj_new_str(str, len));
        if (mp_obj_is_str(answer)) {
            MP_STATE_PORT(prompt_answer) = answer; // readline inserts it byte by byte
            *compl_str = mp_obj_str_get_data(answer, &found);
        } else if (answer == mp_const_true) {
            found = (size_t)-1;
        } else if (answer == mp_const_none) {
            found = __real_mp_repl_autocomplete(str, len, print, compl_str);
        }
        nlr_pop();
    }
    mp_hal_set_interrupt_char(-1);
    mp_handle_pending(false);
    return found;
}

MP_REGISTER_ROOT_POINTER(mp_obj_t prompt_completer);
MP_REGISTER_ROOT_POINTER(mp_obj_t prompt_answer);
MP_REGISTER_ROOT_POINTER(char *prompt_paste);
