"""Reads the host, noun by noun. Never writes; what cannot be read is `Unknown`, never "absent"."""
