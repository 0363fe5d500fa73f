"""A saved plan: what was shown, and everything needed to see later that it still is what would be done."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.lib.atomic import write_atomic
from reconciler.lib.errors import BangerError, UsageError
from reconciler.model.ids import identity
from reconciler.model.nouns import API_VERSION
from reconciler.model.plan import Plan

KIND = "SavedPlan"
_READ_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPlan:
    """What `apply PLANFILE` goes by.

    fingerprint: of the plan; source, digest: the file it was made from, and the SHA-256 of its bytes;
    settings: the `--set` values; allow_recreate: the option of that name.
    """

    environment: str
    fingerprint: str
    source: Path
    digest: str
    settings: Mapping[str, str]
    allow_recreate: bool


def save(
    path: Path, plan: Plan, *, source: Path, digest: str, settings: Mapping[str, str], allow_recreate: bool
) -> None:
    """Writes a plan file, whole or not at all, readable by its owner only: settings may be private."""
    content = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "plan": plan.to_json(),
        "source": {"path": str(source.absolute()), "digest": digest},
        "options": {"set": dict(settings), "allowRecreate": allow_recreate},
    }
    try:
        write_atomic(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode(), mode=0o600)
    except OSError as problem:
        raise BangerError(f"cannot write {path}: {problem.strerror}") from problem


def load(path: Path) -> SavedPlan:
    """Reads a plan file. UsageError if it is not one, or was edited."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            raw = _read(fd)
        finally:
            os.close(fd)
    except OSError as problem:
        raise UsageError(f"{path}: {problem.strerror}", hint="`banger plan --out FILE` writes a plan") from problem
    try:
        return _decode(json.loads(raw))
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise UsageError(
            f"{path} is not a saved plan ({problem})", hint="`banger plan --out FILE` writes one"
        ) from problem


def _read(fd: int) -> bytes:
    status = os.fstat(fd)
    # A FIFO or a device could give bytes for ever, or none and block.
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if status.st_size > _READ_LIMIT:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    with os.fdopen(fd, "rb", closefd=False) as file:
        return file.read(_READ_LIMIT)


def _decode(data: Any) -> SavedPlan:
    if (_typed(data, dict).get("apiVersion"), data.get("kind")) != (API_VERSION, KIND):
        raise ValueError(f"it does not say apiVersion {API_VERSION}, kind {KIND}")
    plan, source, options = (_typed(data[key], dict) for key in ("plan", "source", "options"))
    fingerprint = _typed(plan["fingerprint"], str)
    content = {key: plan[key] for key in ("environment", "steps", "held")}
    # The same hash as Plan.fingerprint: what was read by a person must be what is applied.
    if identity("plan", content) != fingerprint:
        raise ValueError("it was changed after it was saved")
    settings = _typed(options["set"], dict)
    return SavedPlan(
        environment=_typed(plan["environment"], str),
        fingerprint=fingerprint,
        source=Path(_typed(source["path"], str)),
        digest=_typed(source["digest"], str),
        settings={key: _typed(value, str) for key, value in settings.items()},
        allow_recreate=_typed(options["allowRecreate"], bool),
    )


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected, got {type(value).__name__}")
    return value
