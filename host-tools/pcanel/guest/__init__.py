"""Guests: their description files, kernels and initramfs."""
