"""Kernels: fetched, unpacked to what a microVM boots, and their modules."""
