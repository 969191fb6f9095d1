# Objects that contain floating point. All others are compiled so that they cannot
# touch the FPU: a guest's registers stay live in it while the monitor runs.
#
# A file belongs here if and only if it does not compile with -mgeneral-regs-only.
FLOAT_O = $(addprefix $(BUILD)/, $(LIBM_SRC_C:.c=.o))
FLOAT_O += $(BUILD)/port/math.o
FLOAT_O += $(addprefix $(BUILD)/py/, \
	binary.o \
	formatfloat.o \
	modbuiltins.o \
	modcmath.o \
	modmath.o \
	mpprint.o \
	mpz.o \
	nativeglue.o \
	obj.o \
	objcomplex.o \
	objfloat.o \
	objint.o \
	objint_mpz.o \
	objstr.o \
	parsenum.o \
	runtime.o \
	)
FLOAT_O += $(addprefix $(BUILD)/extmod/, \
	modrandom.o \
	modselect.o \
	modtime.o \
	moductypes.o \
	)

# math.c has a wrapper around it.
$(BUILD)/lib/libm_dbl/exp.o: CFLAGS += -Dexp=libm_exp

# Even there, no SSE for copies and zeroing: only floating point itself.
$(FLOAT_O): CFLAGS += -fno-tree-vectorize -ffp-contract=off
$(FLOAT_O): CFLAGS += -mtune-ctrl=^sse_unaligned_load_optimal,^sse_unaligned_store_optimal

$(filter-out $(FLOAT_O), $(OBJ)): CFLAGS += -mgeneral-regs-only

# Flags live in these files.
$(OBJ): Makefile float.mk
