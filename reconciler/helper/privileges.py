"""Gives up what the helper does not need (capabilities(7), prctl(2)). A service has done so already, by its unit."""

from __future__ import annotations

import ctypes
import os
import struct

_NET_BIND_SERVICE, _NET_ADMIN = 10, 12
_KEPT = 1 << _NET_BIND_SERVICE | 1 << _NET_ADMIN
_VERSION = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38


def drop() -> None:
    """For this process, while it has one thread, and all that it starts. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Fails for who may not, and beyond the last capability; what is exec'd gets no more than we have anyway.
    for capability in range(64):
        if not _KEPT >> capability & 1:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    found = ctypes.create_string_buffer(24)
    if libc.capget(_VERSION, found) == 0:
        permitted = struct.unpack("=6I", found.raw)[1] & _KEPT
        wanted = struct.pack("=6I", permitted, permitted, 0, 0, 0, 0)
        if libc.capset(_VERSION, wanted) == libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            return
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
