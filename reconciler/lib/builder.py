"""The way out of a sandbox in which nothing can be built.

The system's controller may gain no privileges, so newuidmap(1), which is setuid root, does not work for it, and without
subordinate ids there is no image. It asks another process of the same user, which systemd starts outside of the sandbox
(systemd/banger-builder@.service), and which makes what it is asked for and nothing else: `daemon.builder`.

A connection is one request. Both sides talk in lines of JSON: `{"make": KIND, "of": …}`, answered by any number of
`{"fraction": …, "message": …}` and one `{"done": true}` or `{"error": …}`. Its end before that ends the work.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from reconciler.lib import cancel
from reconciler.lib.errors import BangerError, CancelledError, ErrorClass
from reconciler.lib.progress import Progress

VARIABLE = "BANGER_BUILDER"
LONGEST = 64 * 1024
"""Bytes of one line."""
_LOOK_UP_SECONDS = 0.25
_HINT = "journalctl -u 'banger-builder@*'; systemctl status banger-builder.socket"


def delegate() -> Path | None:
    """The socket of the builder, if this process has to ask it."""
    value = os.environ.get(VARIABLE, "")
    return Path(value) if value else None


def ask(path: Path, make: str, of: object, progress: Progress) -> None:
    """Has the builder make one thing, and returns when that is done.

    Parameters
    ----------
    path: the builder's socket.
    of: what it is to be, as JSON values.

    Raises BangerError: the builder's own, or a retryable one if it does not answer.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(str(path))
            channel.sendall(json.dumps({"make": make, "of": of}).encode() + b"\n")
            channel.settimeout(_LOOK_UP_SECONDS)
            _follow(channel, progress)
    except (OSError, ValueError) as problem:
        raise BangerError(
            f"the builder at {path} does not answer: {problem}", hint=_HINT, error_class=ErrorClass.RETRYABLE
        ) from None


def _follow(channel: socket.socket, progress: Progress) -> None:
    rest = b""
    while not cancel.cancelled():
        try:
            read = channel.recv(LONGEST)
        except TimeoutError:
            continue
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            if _finished(json.loads(line), progress):
                return
        if not read or len(rest) > LONGEST:
            raise OSError("it ended before it was done")
    raise CancelledError


def _finished(answer: Any, progress: Progress) -> bool:
    match answer:
        case {"fraction": None | int() | float() as fraction, "message": str(message)}:
            progress.update(fraction, message)
            return False
        case {"done": True}:
            return True
        case {"error": {"cause": str(cause), "hint": hint, "replay": replay, "class": str(kind)}}:
            raise BangerError(cause, hint=hint, replay=replay, error_class=ErrorClass(kind))
    raise ValueError("an answer that is none")
