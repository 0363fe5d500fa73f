"""The stages in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reconciler.spec import load
from reconciler.spec.problems import SpecError

if TYPE_CHECKING:
    from reconciler.model.desired import DesiredState


def desired_state(data: bytes, file: str, overrides: Mapping[str, str], env: Mapping[str, str]) -> DesiredState:
    """Bytes to the model; SpecError with the problems of all stages that could still run."""
    document = load.parse(data, file)
    # Late: what is no tree at all is refused without them, and they take as long to load as the largest file to parse.
    from reconciler.spec import params, validate  # noqa: PLC0415
    from reconciler.spec.resolve import resolve  # noqa: PLC0415

    params.fill_in(document, params.resolve(document, overrides, env))
    validate.check(document)
    desired = resolve(document)
    if document.problems or desired is None:
        raise SpecError(document.problems)
    return desired
