"""The stages in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reconciler.lib.paths import Paths
from reconciler.spec import load
from reconciler.spec.problems import SpecError
from reconciler.spec.tree import Document

if TYPE_CHECKING:
    from reconciler.model.desired import DesiredState
    from reconciler.spec.lock import Locked


def checked(data: bytes, file: str, overrides: Mapping[str, str], env: Mapping[str, str]) -> Document:
    """Bytes to a tree that is filled in, and the problems with it."""
    document = load.parse(data, file)
    # Late: what is no tree at all is refused without them, and they take as long to load as the largest file to parse.
    from reconciler.spec import params, validate  # noqa: PLC0415

    params.fill_in(document, params.resolve(document, overrides, env))
    validate.check(document)
    return document


def desired_state(
    data: bytes, file: str, overrides: Mapping[str, str], env: Mapping[str, str], locked: Locked
) -> tuple[DesiredState, Locked]:
    """Bytes to the model, and what they mean of catalogs; SpecError with the problems of all stages that could still run."""
    document = checked(data, file, overrides, env)
    from reconciler.spec.catalogs import Catalogs  # noqa: PLC0415
    from reconciler.spec.resolve import resolve  # noqa: PLC0415

    catalogs = Catalogs(document, locked, Paths.discover(env).catalogs)
    desired = resolve(document, catalogs)
    if document.problems or desired is None:
        raise SpecError(document.problems)
    return desired, catalogs.used
