"""How a tar stream becomes the squashfs of an image."""

from __future__ import annotations

# Uncompressed, so that no guest spends its processor on unpacking. sqfstar(1) takes the root folder not from the tar but
# from its options, else it is mode 0777 and its caller's. -mem bounds its queues, by default a quarter of the host's memory.
SQFSTAR = (
    *("sqfstar", "-noI", "-noD", "-noF", "-noX", "-root-mode", "755", "-root-uid", "0", "-root-gid", "0"),
    *("-quiet", "-no-progress", "-exit-on-error", "-mem", "512M"),
)
