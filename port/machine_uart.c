// machine.UART(n): COM(n + 1) by the ring buffers of uart.c. COM1 is the prompt's
// and is refused. The character forms (readchar, writechar, txroom) allocate nothing.
#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "port/machine_uart.h"
#include "port/uart.h"

typedef struct {
    mp_obj_base_t base;
    uint8_t index;
} machine_uart_obj_t;

static const machine_uart_obj_t uart_objects[UART_COUNT] = {
    {{&pcanel_uart_type}, 0},
    {{&pcanel_uart_type}, 1},
    {{&pcanel_uart_type}, 2},
    {{&pcanel_uart_type}, 3},
};

static unsigned index_of(mp_obj_t self) {
    return ((machine_uart_obj_t *)MP_OBJ_TO_PTR(self))->index;
}

static void uart_print(const mp_print_t *print, mp_obj_t self, mp_print_kind_t kind) {
    (void)kind;
    mp_printf(print, "UART(%u)", index_of(self));
}

static mp_obj_t uart_make_new(
    const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    (void)type;
    mp_arg_check_num(n_args, n_kw, 1, 1, false);
    mp_int_t index = mp_obj_get_int(args[0]);
    if (index < 1 || index >= UART_COUNT) {
        mp_raise_ValueError(MP_ERROR_TEXT("UART 1 (COM2) to 3 (COM4)"));
    }
    if (!uart_present(index)) {
        mp_raise_OSError(MP_ENODEV);
    }
    return MP_OBJ_FROM_PTR(&uart_objects[index]);
}

static mp_obj_t uart_any(mp_obj_t self) {
    return MP_OBJ_NEW_SMALL_INT(uart_rx_any(index_of(self)));
}
static MP_DEFINE_CONST_FUN_OBJ_1(uart_any_obj, uart_any);

static mp_obj_t uart_readchar(mp_obj_t self) {
    return MP_OBJ_NEW_SMALL_INT(uart_rx_char(index_of(self)));
}
static MP_DEFINE_CONST_FUN_OBJ_1(uart_readchar_obj, uart_readchar);

static mp_obj_t uart_writechar(mp_obj_t self, mp_obj_t c) {
    return mp_obj_new_bool(uart_tx_char(index_of(self), mp_obj_get_int(c)));
}
static MP_DEFINE_CONST_FUN_OBJ_2(uart_writechar_obj, uart_writechar);

static mp_obj_t uart_txroom(mp_obj_t self) {
    return MP_OBJ_NEW_SMALL_INT(uart_tx_room(index_of(self)));
}
static MP_DEFINE_CONST_FUN_OBJ_1(uart_txroom_obj, uart_txroom);

static mp_obj_t uart_txdone(mp_obj_t self) {
    return mp_obj_new_bool(uart_tx_done(index_of(self)));
}
static MP_DEFINE_CONST_FUN_OBJ_1(uart_txdone_obj, uart_txdone);

static mp_obj_t uart_get_overruns(mp_obj_t self) {
    return mp_obj_new_int_from_uint(uart_overruns(index_of(self)));
}
static MP_DEFINE_CONST_FUN_OBJ_1(uart_overruns_obj, uart_get_overruns);

// listen(f): f(None) is called, as by micropython.schedule(), when characters come to COM4 and none
// waited; f reads all that there are. None: no listener.
static mp_obj_t uart_set_listener(mp_obj_t self, mp_obj_t listener) {
    if (index_of(self) != UART_LISTENS) {
        mp_raise_ValueError(MP_ERROR_TEXT("only UART 3 (COM4) has a listener"));
    }
    uart_listen(listener == mp_const_none ? MP_OBJ_NULL : listener);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(uart_listen_obj, uart_set_listener);

static mp_uint_t uart_read(mp_obj_t self, void *buf, mp_uint_t size, int *errcode) {
    uint8_t *to = buf;
    mp_uint_t count = 0;
    for (int c; count < size && (c = uart_rx_char(index_of(self))) >= 0; count++) {
        to[count] = c;
    }
    if (count == 0 && size != 0) {
        *errcode = MP_EAGAIN;
        return MP_STREAM_ERROR;
    }
    return count;
}

static mp_uint_t uart_write(mp_obj_t self, const void *buf, mp_uint_t size, int *errcode) {
    const uint8_t *from = buf;
    mp_uint_t count = 0;
    while (count < size && uart_tx_char(index_of(self), from[count])) {
        count++;
    }
    if (count == 0 && size != 0) {
        *errcode = MP_EAGAIN;
        return MP_STREAM_ERROR;
    }
    return count;
}

static mp_uint_t uart_ioctl(mp_obj_t self, mp_uint_t request, uintptr_t flags, int *errcode) {
    unsigned index = index_of(self);
    if (request == MP_STREAM_POLL) {
        mp_uint_t ready = 0;
        if ((flags & MP_STREAM_POLL_RD) && uart_rx_any(index) != 0) {
            ready |= MP_STREAM_POLL_RD;
        }
        if ((flags & MP_STREAM_POLL_WR) && uart_tx_room(index) != 0) {
            ready |= MP_STREAM_POLL_WR;
        }
        return ready;
    }
    if (request == MP_STREAM_FLUSH) {
        while (!uart_tx_done(index)) {
            mp_event_handle_nowait();
        }
        return 0;
    }
    *errcode = MP_EINVAL;
    return MP_STREAM_ERROR;
}

static const mp_rom_map_elem_t uart_locals_table[] = {
    {MP_ROM_QSTR(MP_QSTR_any), MP_ROM_PTR(&uart_any_obj)},
    {MP_ROM_QSTR(MP_QSTR_read), MP_ROM_PTR(&mp_stream_read_obj)},
    {MP_ROM_QSTR(MP_QSTR_readinto), MP_ROM_PTR(&mp_stream_readinto_obj)},
    {MP_ROM_QSTR(MP_QSTR_readline), MP_ROM_PTR(&mp_stream_unbuffered_readline_obj)},
    {MP_ROM_QSTR(MP_QSTR_write), MP_ROM_PTR(&mp_stream_write_obj)},
    {MP_ROM_QSTR(MP_QSTR_flush), MP_ROM_PTR(&mp_stream_flush_obj)},
    {MP_ROM_QSTR(MP_QSTR_readchar), MP_ROM_PTR(&uart_readchar_obj)},
    {MP_ROM_QSTR(MP_QSTR_writechar), MP_ROM_PTR(&uart_writechar_obj)},
    {MP_ROM_QSTR(MP_QSTR_txroom), MP_ROM_PTR(&uart_txroom_obj)},
    {MP_ROM_QSTR(MP_QSTR_txdone), MP_ROM_PTR(&uart_txdone_obj)},
    {MP_ROM_QSTR(MP_QSTR_listen), MP_ROM_PTR(&uart_listen_obj)},
    {MP_ROM_QSTR(MP_QSTR_overruns), MP_ROM_PTR(&uart_overruns_obj)},
};
static MP_DEFINE_CONST_DICT(uart_locals, uart_locals_table);

static const mp_stream_p_t uart_stream = {
    .read = uart_read,
    .write = uart_write,
    .ioctl = uart_ioctl,
};

MP_DEFINE_CONST_OBJ_TYPE(pcanel_uart_type, MP_QSTR_UART, MP_TYPE_FLAG_ITER_IS_STREAM, make_new,
    uart_make_new, print, uart_print, protocol, &uart_stream, locals_dict, &uart_locals);
