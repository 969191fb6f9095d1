"""Disk images for guests."""
