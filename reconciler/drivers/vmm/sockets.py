"""Unix sockets below folders of any depth.

A socket's path is limited to 107 bytes (unix(7)), and a user's folders may be deeper than that. Both sides
therefore name a socket through an open folder: `/proc/self/fd/<n>/<name>` is short wherever the folder lies.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder(path: Path) -> Iterator[int]:
    """An open file descriptor of a folder, for `inside`."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def inside(fd: int) -> str:
    """The short name of an open folder, valid in every process that has the same descriptor."""
    return f"/proc/self/fd/{fd}"


def connect(path: Path, seconds: float) -> socket.socket:
    """A stream connection to the socket at `path`. Raises OSError; TimeoutError if nobody accepts in time."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        client.settimeout(max(seconds, 0.001))
        with folder(path.parent) as fd:
            client.connect(f"{inside(fd)}/{path.name}")
    except BaseException:
        client.close()
        raise
    return client
