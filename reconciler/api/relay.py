"""The progress of an operation, read from its stream and told to a `Reporter`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from reconciler.api import forms
from reconciler.api.plan_forms import outcome_from, step_from
from reconciler.api.problems import from_problem
from reconciler.api.service import Reporter
from reconciler.api.transport import misunderstood
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.model.plan import Step


def relay(stream: Iterable[tuple[str, Any]], reporter: Reporter) -> Any:
    """Tells `reporter` everything, and returns the result.

    Raises the operation's error, or a BangerError if the stream ends before the operation does.
    """
    steps: dict[str, Step] = {}
    for name, data in stream:
        if name == "result":
            return data
        with misunderstood():
            if name == "error":
                raise from_problem(data)
            tell = _read(name, data, steps, reporter)
        tell()
    raise BangerError(
        "the controller ended before the operation did",
        hint="the next controller goes on with it; banger status shows how far it is",
        error_class=ErrorClass.RETRYABLE,
    )


def _read(name: str, data: dict[str, Any], steps: dict[str, Step], reporter: Reporter) -> Callable[[], None]:
    """What is to be told. Apart from telling it: a defect in there is no misunderstanding."""
    if "step" in data:
        steps[data["id"]] = step_from(data["step"])
    match name:
        case "started":
            return partial(reporter.started, steps[data["id"]])
        case "progress":
            return partial(reporter.progress, steps[data["id"]], data["fraction"], data["message"])
        case "retrying":
            return partial(reporter.retrying, steps[data["id"]], from_problem(data["error"]), data["delay"])
        case "finished":
            return partial(reporter.finished, steps[data["id"]], outcome_from(data["outcome"]))
        case "waiting":
            return partial(reporter.waiting, list(map(forms.status_from, forms.items(data))))
        case "note":
            return partial(reporter.note, data["message"])
    return lambda: None  # of a newer controller, which tells more
