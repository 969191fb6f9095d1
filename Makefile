# Pcanel/Py. `make run` boots the monitor with Linux and the real-time guest; `make help` lists the rest.
#
# The first run of any target sets up what it needs: Debian packages, the virtual
# environment, MicroPython's source, guest kernels. Each step is done once; its stamp
# is in build/stamps. All output is under build/ and .venv/.
#
#   MICROPYTHON=DIR   use the MicroPython tree in DIR instead of fetching one
#   ENGINE=NAME       auto, bochs, bochs27 or qemu, for run, repl and test
#   CPU=MODEL         the engine's CPU model, for run and repl
#   GUESTS='FILE...'  guest files, for run
#   TESTS='PATH...'   which tests, for test

BUILD := build
VENV := .venv
STAMPS := $(BUILD)/stamps
SETUP := host-tools/setup
PCANEL := $(VENV)/bin/pcanel
PYTHON := $(VENV)/bin/python

MICROPYTHON ?= $(BUILD)/micropython
MICROPYTHON_READY = $(if $(filter $(BUILD)/micropython,$(MICROPYTHON)),$(STAMPS)/micropython,$(MICROPYTHON))
ENGINE ?= auto
CPU ?=
GUESTS ?= guests/linux.toml guests/rtos.toml
JOBS ?= $(shell nproc)
# For a make that is called: the jobs of this one, where it has some.
PARALLEL = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))
# Where some only wait, for a network or a machine that sleeps: one more than there are CPUs.
ALSO_WAITING := $(shell expr $(JOBS) + 1)
TESTS ?= tests

# Caches are output too.
export PYTHONPYCACHEPREFIX := $(abspath $(BUILD)/pycache)
export PYTHONDONTWRITEBYTECODE :=
export HYPOTHESIS_STORAGE_DIRECTORY := $(abspath $(BUILD)/hypothesis)

# Abbreviations of data sheets and kernels, not misspelt words.
SPELLED := nin,thre,extint,ist,nd,unx,ue,ser

PYTHON_SOURCES := vmm port tests host-tools guests

RUN_OPTIONS = --engine $(ENGINE) $(if $(CPU),--cpu $(CPU))
C_SOURCES = $(wildcard port/*.c port/*.h guests/*/*.c guests/*/*.h host-tools/*/*.c host-tools/*/*.h)

.PHONY: all help setup elf iso bochs guests rtos debian installer run repl test ready-for-test test-long test-nested bench latency bench-quick check format size doctor clean
.DELETE_ON_ERROR:

all: elf iso

help:
	@echo 'make all      the image (build/pcanel.elf) and the boot medium (build/pcanel.iso)'
	@echo 'make run      boot it with Linux and the real-time guest (GUESTS=..., ENGINE=..., CPU=...)'
	@echo 'make repl     boot it without guests: the Python prompt only'
	@echo 'make bochs    Bochs 3.0 built for speed, which all of these use from then on (test, bench, latency build it)'
	@echo 'make debian   a Debian disk for guests/debian.toml (a minute of a CPU, 200 MB from the mirror)'
	@echo 'make installer  the netboot installer of guests/installer.toml (133 MB)'
	@echo 'make test     all tests'
	@echo 'make test-long  those that take minutes each: 1 MiB over the link, cyclictest'
	@echo 'make test-nested  the monitor under QEMU with nested VMX, in an emulated machine'
	@echo 'make bench    what exits, Linux and guests cost, beside KVM (bench-quick: the exits, without KVM)'
	@echo 'make latency  how late the timer interrupts of the real-time guest are, beside KVM (half an hour)'
	@echo 'make check    ruff, clang-format, codespell'
	@echo 'make size     size of the image by section and of its largest symbols'
	@echo 'make doctor   what this machine has, and what would mend each lack'
	@echo 'make clean    remove what was built (keeps what was downloaded; make distclean removes that too)'

# ---- set-up ----------------------------------------------------------------

$(STAMPS)/packages: $(SETUP)/packages.txt
	@$(SETUP)/packages.sh
	@mkdir -p $(@D) && touch $@

$(STAMPS)/venv: host-tools/pyproject.toml $(SETUP)/requirements.txt | $(STAMPS)/packages
	@$(SETUP)/venv.sh $(VENV)
	@touch $@

$(STAMPS)/apt: | $(STAMPS)/packages
	@$(SETUP)/apt-state.sh $(BUILD)/apt
	@touch $@

$(STAMPS)/apt-trixie: | $(STAMPS)/packages
	@$(SETUP)/apt-state.sh $(BUILD)/apt-trixie trixie
	@touch $@

$(STAMPS)/apt-i386: | $(STAMPS)/packages
	@$(SETUP)/apt-state.sh $(BUILD)/apt-i386 bookworm i386
	@touch $@

$(STAMPS)/micropython: $(SETUP)/micropython.sh $(wildcard $(SETUP)/micropython/*.patch) | $(STAMPS)/apt
	@$(SETUP)/micropython.sh $(BUILD)/apt $(BUILD)/micropython
	@touch $@

$(BUILD)/guests/cloud: | $(STAMPS)/apt
	@$(SETUP)/kernel.sh $(BUILD)/apt linux-image-cloud-amd64 $@

$(BUILD)/guests/full: | $(STAMPS)/apt
	@$(SETUP)/kernel.sh $(BUILD)/apt linux-image-amd64 $@

$(BUILD)/guests/rt: | $(STAMPS)/apt
	@$(SETUP)/kernel.sh $(BUILD)/apt linux-image-rt-amd64 $@

$(BUILD)/guests/trixie: | $(STAMPS)/apt-trixie
	@$(SETUP)/kernel.sh $(BUILD)/apt-trixie linux-image-cloud-amd64 $@

$(BUILD)/guests/i686: | $(STAMPS)/apt-i386
	@$(SETUP)/kernel.sh $(BUILD)/apt-i386 linux-image-686 $@

$(BUILD)/guests/busybox-i386: | $(STAMPS)/apt-i386
	@$(SETUP)/unpack.sh $(BUILD)/apt-i386 $@ busybox-static

$(BUILD)/guests/rt-tests: | $(STAMPS)/apt
	@$(SETUP)/unpack.sh $(BUILD)/apt $@ rt-tests libnuma1 libc6

$(BUILD)/guests/strace: | $(STAMPS)/apt
	@$(SETUP)/unpack.sh $(BUILD)/apt $@ strace libunwind8 liblzma5 libgcc-s1 libc6

$(BUILD)/guests/memtest: | $(STAMPS)/apt
	@$(SETUP)/unpack.sh $(BUILD)/apt $@ memtest86+

# 3.0 built for speed; with its debugger, for a profile and for breakpoints. `make run` waits for neither.
$(BUILD)/bochs/bochs: $(SETUP)/bochs.sh $(wildcard $(SETUP)/bochs/*.patch) | $(STAMPS)/apt
	@$(SETUP)/bochs.sh $(BUILD)/apt $(@D) fast

$(BUILD)/bochs/bochs-debugger: $(SETUP)/bochs.sh $(wildcard $(SETUP)/bochs/*.patch) | $(STAMPS)/apt
	@$(SETUP)/bochs.sh $(BUILD)/apt $(@D) debugger

bochs: $(BUILD)/bochs/bochs

$(BUILD)/guests/ipxe: | $(STAMPS)/apt
	@$(SETUP)/unpack.sh $(BUILD)/apt $@ ipxe

$(BUILD)/guests/installer: | $(STAMPS)/apt
	@$(SETUP)/unpack.sh $(BUILD)/apt $@ debian-installer-12-netboot-amd64

$(BUILD)/guests/memdisk: | $(STAMPS)/apt
	@$(SETUP)/unpack.sh $(BUILD)/apt $@ syslinux-common

setup: $(STAMPS)/packages $(STAMPS)/venv $(MICROPYTHON_READY) | guests

# For Debian's Bochs.
$(BUILD)/loopback.so: host-tools/loopback/bind.c | $(STAMPS)/packages
	@gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o $@ $<

# For `pcanel view`.
$(BUILD)/vnc.so: host-tools/vnc/server.c | $(STAMPS)/packages
	@gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o $@ $< -lvncserver

# ---- the image -------------------------------------------------------------

elf: $(STAMPS)/venv $(BUILD)/loopback.so $(BUILD)/vnc.so $(MICROPYTHON_READY)
	@$(MAKE) $(PARALLEL) --no-print-directory -C port BUILD=$(abspath $(BUILD)/port) \
	    MICROPYTHON_DIR=$(abspath $(MICROPYTHON)) PYTHON=$(abspath $(PYTHON))

iso: elf
	@$(PYTHON) -m pcanel.image $(BUILD)/pcanel.elf $(BUILD)/pcanel.iso

# ---- guests ----------------------------------------------------------------

INITRD := $(BUILD)/guests/initrd.cpio
I386_INITRD := $(BUILD)/guests/initrd-i386.cpio
RT_INITRD := $(BUILD)/guests/rt-initrd.cpio
MEMTEST := $(BUILD)/guests/memtest.bin
KERNELS := $(foreach name,cloud full rt trixie i686,$(BUILD)/guests/$(name).bzImage $(BUILD)/guests/$(name).vmlinux)
INITRAMFS = host-tools/pcanel/guest/initramfs.py guests/initramfs/init $(STAMPS)/venv

$(BUILD)/guests/%.bzImage: | $(BUILD)/guests/%
	@cp $(BUILD)/guests/$*/boot/vmlinuz-* $@

$(BUILD)/guests/%.vmlinux: $(BUILD)/guests/%.bzImage $(STAMPS)/venv
	@$(PYTHON) -m pcanel.guest.vmlinux $< $@

$(BUILD)/guests:
	@mkdir -p $@

$(INITRD): $(INITRAMFS) | $(BUILD)/guests
	@$(PYTHON) -m pcanel.guest.initramfs guests/initramfs/init $@

$(I386_INITRD): $(INITRAMFS) | $(BUILD)/guests $(BUILD)/guests/busybox-i386
	@$(PYTHON) -m pcanel.guest.initramfs --busybox $(BUILD)/guests/busybox-i386/bin/busybox guests/initramfs/init $@

$(RT_INITRD): $(INITRAMFS) | $(BUILD)/guests $(BUILD)/guests/rt-tests
	@$(PYTHON) -m pcanel.guest.initramfs guests/initramfs/init $@ $(BUILD)/guests/rt-tests usr/bin/cyclictest

$(MEMTEST): | $(BUILD)/guests/memtest
	@cp $(BUILD)/guests/memtest/boot/memtest86+x64.bin $@

# Programs with Linux's boot header that are entered in real mode.
REAL_MODE := $(addprefix $(BUILD)/guests/,ipxe.lkrn memdisk.bin grub.lnx)
GRUB := /usr/lib/grub/i386-pc

$(BUILD)/guests/ipxe.lkrn: | $(BUILD)/guests/ipxe
	@cp $(BUILD)/guests/ipxe/boot/ipxe.lkrn $@

$(BUILD)/guests/memdisk.bin: | $(BUILD)/guests/memdisk
	@cp $(BUILD)/guests/memdisk/usr/lib/syslinux/memdisk $@

$(BUILD)/guests/grub.lnx: | $(STAMPS)/packages
	@mkdir -p $(@D)
	@grub-mkimage -O i386-pc -p '(memdisk)/' -o $@.core normal echo halt reboot
	@cat $(GRUB)/lnxboot.img $@.core > $@
	@rm $@.core

guests: $(KERNELS) $(INITRD) $(I386_INITRD) $(RT_INITRD) $(MEMTEST) $(REAL_MODE) rtos
	@echo 'guests: the small test guests'
	@$(MAKE) $(PARALLEL) --silent --no-print-directory -C guests/tests BUILD=$(abspath $(BUILD)/guests/tests)
	@echo 'guests: the test guests with several processors'
	@$(MAKE) $(PARALLEL) --silent --no-print-directory -C guests/smp BUILD=$(abspath $(BUILD)/guests/smp)
	@echo 'guests: the guest of the bench'
	@$(MAKE) $(PARALLEL) --silent --no-print-directory -C guests/exitbench BUILD=$(abspath $(BUILD)/guests/exitbench)

rtos: | $(STAMPS)/packages
	@echo 'guests: the real-time guest'
	@$(MAKE) $(PARALLEL) --silent --no-print-directory -C guests/rtos BUILD=$(abspath $(BUILD)/guests/rtos)

.SECONDARY: $(KERNELS)

# Debian disks, for guests/debian.toml and guests/trixie.toml, and for tests.
$(BUILD)/images/debian.img: $(wildcard $(SETUP)/debian/*) | $(STAMPS)/venv $(STAMPS)/apt
	@$(PCANEL) image debian debian

$(BUILD)/images/trixie.img: $(wildcard $(SETUP)/debian/*) | $(STAMPS)/venv $(STAMPS)/apt-trixie
	@$(PCANEL) image debian trixie --suite trixie

$(BUILD)/images/full.img: $(wildcard $(SETUP)/debian/*) | $(STAMPS)/venv $(STAMPS)/apt
	@$(PCANEL) image debian full --kernel full

$(BUILD)/images/trixie-full.img: $(wildcard $(SETUP)/debian/*) | $(STAMPS)/venv $(STAMPS)/apt-trixie
	@$(PCANEL) image debian trixie-full --suite trixie --kernel full

debian: $(BUILD)/images/debian.img

installer: $(BUILD)/guests/installer

# ---- use -------------------------------------------------------------------

# The default guests need one kernel and rtos.elf; anybody else's may need all there is.
run: elf $(if $(filter-out guests/linux.toml guests/rtos.toml,$(GUESTS)),guests,$(BUILD)/guests/cloud.vmlinux $(INITRD) rtos)
	@$(PCANEL) run $(RUN_OPTIONS) $(GUESTS)

repl: elf
	@$(PCANEL) run $(RUN_OPTIONS)

# An engine that is named is enough.
FAST_BOCHS := $(if $(filter bochs27 qemu,$(ENGINE)),,bochs)

test: ready-for-test
	@PCANEL_ENGINE=$(ENGINE) PCANEL_COMPLETE=1 $(PYTHON) -m pytest -n $(ALSO_WAITING) --dist loadfile --no-loadscope-reorder $(TESTS)

# By itself a make does one thing at a time; here downloads, compilers and checks wait for each other only where they must.
ready-for-test: $(STAMPS)/packages
	@$(MAKE) --no-print-directory $(if $(PARALLEL),-j$(ALSO_WAITING)) \
	    check all $(FAST_BOCHS) guests $(BUILD)/kvmrun/kvmrun $(BUILD)/images/debian.img

# One at a time: each is a Bochs with a whole system in it.
test-nested: all bochs guests
	@$(PYTHON) -m pytest -m 'long or not long' tests/nested

$(BUILD)/guests/exitbench/exitbench.elf: $(wildcard guests/exitbench/* guests/tests/lib/*)
	@$(MAKE) $(PARALLEL) --silent --no-print-directory -C guests/exitbench BUILD=$(abspath $(BUILD)/guests/exitbench)

$(BUILD)/kvmrun/kvmrun: $(wildcard host-tools/kvmrun/*)
	@$(MAKE) $(PARALLEL) --silent --no-print-directory -C host-tools/kvmrun BUILD=$(abspath $(BUILD)/kvmrun) $(abspath $@)

bench: elf bochs $(BUILD)/bochs/bochs-debugger guests debian $(BUILD)/guests/strace $(BUILD)/kvmrun/kvmrun
	@$(PCANEL) bench

latency: elf bochs guests $(BUILD)/kvmrun/kvmrun
	@$(PCANEL) bench --latency

bench-quick: elf bochs $(BUILD)/guests/exitbench/exitbench.elf
	@$(PCANEL) bench --quick

test-long: all $(FAST_BOCHS) guests debian installer $(foreach name,trixie full trixie-full,$(BUILD)/images/$(name).img)
	@PCANEL_ENGINE=$(ENGINE) $(PYTHON) -m pytest -n $(JOBS) --dist loadfile -m long --ignore tests/nested $(TESTS)

doctor: $(STAMPS)/venv
	@$(PCANEL) doctor

check: $(STAMPS)/venv
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check --quiet $(PYTHON_SOURCES) || { echo 'check: make format would change Python files'; exit 1; }
	@clang-format --dry-run -Werror $(C_SOURCES)
	@git ls-files -z | xargs -0 codespell --ignore-words-list $(SPELLED)

format: $(STAMPS)/venv
	@$(VENV)/bin/ruff check --fix-only --quiet . # what it cannot mend, make check tells
	@$(VENV)/bin/ruff format $(PYTHON_SOURCES)
	@clang-format -i $(C_SOURCES)

size: elf
	@$(PYTHON) -m pcanel.size $(BUILD)/pcanel.elf

clean:
	rm -rf $(BUILD)/port $(BUILD)/pcanel.* $(BUILD)/loopback.so $(BUILD)/vnc.so $(BUILD)/run $(BUILD)/cache $(BUILD)/bench* $(BUILD)/kvmrun $(BUILD)/guests/exitbench $(BUILD)/outer $(BUILD)/guests/tests $(BUILD)/guests/smp $(BUILD)/guests/rtos

.PHONY: distclean
distclean:
	rm -rf $(BUILD) $(VENV)
