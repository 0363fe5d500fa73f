"""How a tar stream becomes the squashfs of an image."""

from __future__ import annotations

from pathlib import Path

# Uncompressed, so that no guest spends its processor on unpacking. sqfstar(1) takes the root folder not from the tar but
# from its options, else it is mode 0777 and its caller's. -mem bounds its queues, by default a quarter of the host's memory.
SQFSTAR = (
    *("sqfstar", "-noI", "-noD", "-noF", "-noX", "-root-mode", "755", "-root-uid", "0", "-root-gid", "0"),
    *("-quiet", "-no-progress", "-exit-on-error", "-mem", "512M"),
)

DRAINED = "exec cat >/dev/null"
"""What follows sqfstar in a shell. It ends at the first of the two blocks of zeros that end a tar (tar(5)), and tar(1)
fills a record with more of them: who still writes them when it has gone meets a broken pipe, once in some twenty times.
"""


def packing(squashfs: Path) -> list[str | Path]:
    """The command that packs a tar on its stdin, and reads it to the end."""
    return ["sh", "-c", f'"$@" && {DRAINED}', "sqfstar", *SQFSTAR, squashfs]
