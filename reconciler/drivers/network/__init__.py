"""Bridges and taps through the root helper, and a read-only look at what the kernel has."""
