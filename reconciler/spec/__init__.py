"""Turns a file into a `DesiredState`, or into the list of everything that is wrong with it.

The promise: whatever the file holds, the answer is one of these two, within bounded time and memory. Nothing is
written, no host state is read, and a file that is not right in every point yields no state at all.

The stages, one module each: `source` reads bytes, `load` makes a tree with positions, `params` fills in `${x}`,
`validate` holds the tree against schemas/banger.schema.json, `resolve` builds the model and checks what a schema
cannot say, `catalogs` reads the indexes that it refers to, `lock` says which images its tags are to be. Importing this package brings none of them: the parser and the validator load on first use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.spec.problems import Problem, SpecError

if TYPE_CHECKING:
    from reconciler.model.desired import DesiredState
    from reconciler.spec.lock import Locked

__all__ = ["Loaded", "Problem", "SpecError", "load_beside", "load_file", "load_text", "schema"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid file: what it asks for, the SHA-256 of its bytes and of its lock file's in hex, where it was read, and what it
    takes from catalogs, as `lock` keeps it."""

    desired: DesiredState
    digest: str
    path: Path
    catalogs: Locked


def load_file(
    path: Path,
    overrides: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    *,
    heed_lock: bool = True,
) -> Loaded:
    """Reads, checks and resolves one file, and the lock file beside it if there is one.

    Parameters
    ----------
    path: the file; symbolic links are followed, anything but a regular file is refused without being opened.
    overrides: values for declared `params`, as `--set` gives them; they beat `env`.
    env: the environment in which `BANGER_PARAM_x` is looked up, and where the cache lies; the process's own by default.
    heed_lock: whether the lock file counts; else everything means what it does without one.

    Raises SpecError with every problem, sorted by position.
    """
    from reconciler.spec.source import read  # noqa: PLC0415

    return load_beside(read(path), path, overrides, env, heed_lock=heed_lock)


def load_beside(
    data: bytes,
    path: Path,
    overrides: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    *,
    heed_lock: bool = True,
) -> Loaded:
    """The same for a file whose bytes are already read."""
    import hashlib  # noqa: PLC0415  # see the package's promise: importing it is cheap

    from reconciler.spec import lock  # noqa: PLC0415
    from reconciler.spec.pipeline import desired_state  # noqa: PLC0415

    locked = lock.read_beside(path) if heed_lock else lock.Lock()
    env = os.environ if env is None else env
    desired, catalogs = desired_state(data, str(path), overrides or {}, env, locked.catalogs)
    digest = hashlib.sha256(data + locked.text).hexdigest()
    return Loaded(lock.honour(desired, locked), digest, path, catalogs)


def load_text(
    data: bytes, file: str, overrides: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None
) -> DesiredState:
    """The desired state of bytes that lie nowhere, so that no lock file does beside them; `file` is what problems are reported against."""
    from reconciler.spec.pipeline import desired_state  # noqa: PLC0415

    return desired_state(data, file, overrides or {}, os.environ if env is None else env, {})[0]


def schema() -> dict[str, Any]:
    """The published JSON schema of the file (draft 2020-12), parsed anew for each caller."""
    import json  # noqa: PLC0415

    from reconciler.spec.published import schema_text  # noqa: PLC0415

    result: dict[str, Any] = json.loads(schema_text())
    return result
