"""Reads what secrets refer to, and says of a value only whether it is the same as before.

A value is held as long as it takes to hand it on. What is kept of it is a hash under a key of this installation, from
which nothing can be guessed by whoever lacks that key. Errors name the reference and never the value, nor what a
command that was to tell it said.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import time
from pathlib import Path

from reconciler.lib import atomic, run
from reconciler.lib.errors import BangerError
from reconciler.model.inside import Secret

MAX_BYTES = 64 * 1024
_COMMAND_SECONDS = 30.0
_REMEMBERED_SECONDS = 300.0
"""How long a controller goes by what a command told before: it may ask a person, or a service that counts."""

_PROCESS_KEY = secrets.token_bytes(32)
_remembered: dict[tuple[bytes, str], tuple[float, str]] = {}


def read(secret: Secret) -> bytes:
    """The value, fresh. Raises BangerError if there is none, or it is too long."""
    if secret.env is not None:
        value = _of_variable(secret)
    elif secret.file is not None:
        value = _of_file(secret)
    else:
        value = _of_command(secret)
    if not value:
        raise BangerError(f"secret {secret.name}: {secret.reference} is empty")
    if len(value) > MAX_BYTES:
        raise BangerError(f"secret {secret.name}: {secret.reference} is longer than {MAX_BYTES // 1024} KiB")
    return value


def digest(secret: Secret, key: bytes) -> str:
    """The keyed hash of the value. Raises BangerError as `read` does."""
    known = _remembered.get((key, secret.reference))
    if secret.command and known is not None and time.monotonic() - known[0] < _REMEMBERED_SECONDS:
        return known[1]
    found = hashed(read(secret), key)
    if secret.command:
        _remembered[key, secret.reference] = (time.monotonic(), found)
    return found


def hashed(value: bytes, key: bytes) -> str:
    return hmac.new(key, value, hashlib.sha256).hexdigest()


def key(path: Path) -> bytes:
    """The installation's key; one of this process where there is none yet, which no hash that was kept can fit."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return _PROCESS_KEY
    except OSError as problem:
        raise BangerError(f"cannot read the key {path}: {problem.strerror}") from None


def ensure_key(path: Path) -> bytes:
    """The same, made if there is none. For the holder of the writer lock."""
    if not path.exists():
        try:
            atomic.write_atomic(path, secrets.token_bytes(32), mode=0o600)
        except OSError as problem:
            raise BangerError(f"cannot write the key {path}: {problem.strerror}") from None
    return key(path)


def _of_variable(secret: Secret) -> bytes:
    assert secret.env is not None
    run.withhold(secret.env)
    value = os.environb.get(os.fsencode(secret.env))
    if value is None:
        raise BangerError(f"secret {secret.name}: {secret.reference} is not set where banger runs")
    return value


def _of_file(secret: Secret) -> bytes:
    assert secret.file is not None
    try:
        with os.fdopen(os.open(secret.file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BangerError(f"secret {secret.name}: {secret.reference} is not a file")
            return file.read(MAX_BYTES + 1)
    except OSError as problem:
        raise BangerError(f"secret {secret.name}: {secret.reference}: {problem.strerror}") from None


def _of_command(secret: Secret) -> bytes:
    try:
        done = run.run(secret.command, timeout=_COMMAND_SECONDS, check=False)
    except run.CommandError as problem:
        # Not its output, which may hold half of a value.
        why = "is not installed" if "not installed" in problem.cause else f"takes longer than {_COMMAND_SECONDS:g} s"
        raise BangerError(f"secret {secret.name}: {secret.reference} {why}") from None
    except OSError as problem:
        raise BangerError(f"secret {secret.name}: {secret.reference}: {problem.strerror}") from None
    if done.returncode != 0:
        raise BangerError(f"secret {secret.name}: {secret.reference} failed with exit code {done.returncode}")
    return done.stdout
