"""The stages in their order."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.model.desired import DesiredState
from reconciler.spec import load, params, validate
from reconciler.spec.problems import SpecError
from reconciler.spec.resolve import resolve


def desired_state(data: bytes, file: str, overrides: Mapping[str, str], env: Mapping[str, str]) -> DesiredState:
    """Bytes to the model; SpecError with the problems of all stages that could still run."""
    document = load.parse(data, file)
    params.fill_in(document, params.resolve(document, overrides, env))
    validate.check(document)
    desired = resolve(document)
    if document.problems or desired is None:
        raise SpecError(document.problems)
    return desired
